"""What an attempt is said to have cost, with a stand-in for NVML where there is no GPU."""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from experiments.cost_meter import CostMeter, TokenCount
from experiments.gpu_counters import GpuCounters
from experiments.stage_command import StageCommand

MIB = 2**20


def command(**more):
    return StageCommand(module="m", argv=(), stage_hash="abc", artefacts=(), **more)


class Nvml(types.ModuleType):
    """pynvml with two GPUs, of which the second is also known by its UUID."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.energy_mj, self.used, self.n_open = [5_000, 70_000], [3 * MIB, 9 * MIB], 0

    def nvmlInit(self):
        self.n_open += 1

    def nvmlShutdown(self):
        self.n_open -= 1

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1b":
            raise self.NVMLError("Not Found")
        return 1

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.energy_mj[handle] is None:
            raise self.NVMLError("Not Supported")
        return self.energy_mj[handle]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return types.SimpleNamespace(used=self.used[handle])


@pytest.fixture
def nvml(monkeypatch):
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


def test_time_counts_for_every_gpu_of_every_node(tmp_path):
    meter = CostMeter(tmp_path, "train", command(gpus=4, nodes=2))
    time.sleep(0.05)
    cost = meter.stop()
    assert 0.05 <= cost.wall_s < 5
    assert cost.gpu_s == pytest.approx(8 * cost.wall_s, abs=0.01)
    assert CostMeter(tmp_path, "train", command()).stop().gpu_s == 0


def test_main_memory_is_the_peak_of_this_attempt_not_of_an_earlier_one(tmp_path):
    def attempt(n_mib):
        meter = CostMeter(tmp_path, "train", command())
        del bytearray(b"x" * (n_mib * MIB))[:]
        return meter.stop().peak_memory_bytes

    small, large, again = attempt(1), attempt(300), attempt(1)
    assert large > small + 250 * MIB
    assert again < large - 250 * MIB


def test_main_memory_of_a_child_counts_once(tmp_path):
    def attempt(n_mib):
        meter = CostMeter(tmp_path, "train", command())
        subprocess.run([sys.executable, "-c", f"b'x' * ({n_mib} * 2**20)"], check=True)
        return meter.stop().peak_memory_bytes

    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(line for line in lines if line.startswith("VmRSS"))
    large = int(own.split()[1]) // 1024 + 600  # in MiB; more than this process has by now
    assert large * MIB < attempt(large) < 2 * large * MIB
    assert attempt(1) < large * MIB


@pytest.mark.parametrize(
    ("visible", "joules", "peak"),
    [
        ("0", 2.0, 3 * MIB),
        ("1", 30.0, 9 * MIB),
        ("0,1", 32.0, 9 * MIB),
        ("GPU-1b", 30.0, 9 * MIB),
        (None, 32.0, 9 * MIB),
        ("", None, None),
        ("7", None, None),
        ("GPU-none", None, None),
    ],
)
def test_energy_and_memory_are_of_the_visible_gpus(nvml, monkeypatch, visible, joules, peak):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    counters = GpuCounters(2)
    nvml.energy_mj = [7_000, 100_000]
    assert counters.stop() == (peak, joules)
    assert nvml.n_open == 0


def test_no_gpus_named_and_not_all_ours_is_not_known(nvml):
    assert GpuCounters(1).stop() == (None, None)


@pytest.mark.parametrize("after", [[None, 80_000], [4_000, 80_000]])
def test_a_counter_that_fails_or_runs_backwards_tells_no_energy(nvml, after):
    counters = GpuCounters(2)
    nvml.energy_mj = after if after[0] is None else [0, 0]
    assert counters.stop() == (9 * MIB, None)


def test_energy_of_several_nodes_is_not_told_from_one(nvml, tmp_path):
    assert CostMeter(tmp_path, "train", command(gpus=2)).stop().energy_j == 0
    assert CostMeter(tmp_path, "train", command(gpus=2, nodes=2)).stop().energy_j is None


def test_without_gpus_nvml_is_not_asked(nvml, tmp_path):
    cost = CostMeter(tmp_path, "score", command()).stop()
    assert (cost.energy_j, cost.peak_gpu_memory_bytes) == (None, None)


def test_a_driver_that_does_not_answer_is_no_fault(nvml, tmp_path):
    def refuse():
        raise nvml.NVMLError("Driver Not Loaded")

    nvml.nvmlInit = refuse
    cost = CostMeter(tmp_path, "train", command(gpus=1)).stop()
    assert (cost.energy_j, cost.peak_gpu_memory_bytes) == (None, None)


def test_what_torch_allocated_goes_before_what_the_gpu_shows(nvml, monkeypatch):
    peaks, resets = [5 * MIB, 6 * MIB], []
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        max_memory_allocated=lambda index: peaks[index],
        reset_peak_memory_stats=resets.append,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert GpuCounters(2).stop()[0] == 6 * MIB
    assert resets == [0, 1]
    peaks[:] = [0, 0]  # the work was a child's
    assert GpuCounters(2).stop()[0] == 9 * MIB


def test_measuring_imports_no_torch(tmp_path):
    code = (
        "import sys, pathlib; from experiments.cost_meter import CostMeter\n"
        "from experiments.stage_command import StageCommand\n"
        "command = StageCommand(module='m', argv=(), stage_hash='a', artefacts=(), gpus=1)\n"
        f"CostMeter(pathlib.Path({str(tmp_path)!r}), 'train', command).stop()\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


def write(path, **document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def test_trained_tokens_are_those_since_the_attempt_began(tmp_path):
    write(tmp_path / "progress.train.json", step=3, total=9, first_step=0, tokens=300, first_tokens=0)
    tokens = TokenCount(tmp_path, "train")
    assert tokens.since() is None  # what an earlier attempt has left
    write(tmp_path / "progress.train.json", step=9, total=9, first_step=3, tokens=900, first_tokens=300)
    assert tokens.since() == 600


@pytest.mark.parametrize("content", ["{", "[]", '{"step": 1, "total": 2}', '{"tokens": "many"}'])
def test_progress_that_says_nothing_of_tokens_is_not_known(tmp_path, content):
    tokens = TokenCount(tmp_path, "train")
    (tmp_path / "progress.train.json").write_text(content)
    assert tokens.since() is None


def test_generated_tokens_leave_out_what_earlier_attempts_have_made(tmp_path):
    kept, whole, anew, untouched = (
        tmp_path / "generate" / name / "generation.json" for name in ("a", "b", "c", "d")
    )
    write(kept, tokens=100)
    write(anew, tokens=500)
    write(untouched, tokens=70)
    tokens = TokenCount(tmp_path, "generate")
    write(kept, tokens=130, complete=True)
    write(whole, tokens=40)
    write(anew, tokens=200)
    assert tokens.since() == 30 + 40 + 200


def test_other_stages_count_no_tokens(tmp_path):
    tokens = TokenCount(tmp_path, "score")
    write(tmp_path / "generate" / "a" / "generation.json", tokens=100)
    assert tokens.since() is None


def test_training_says_where_it_began_and_how_far_it_came(tmp_path, monkeypatch):
    from transformers import TrainerControl, TrainerState

    from po.training.checkpoint import AttemptCallback

    def progress():
        return json.loads((tmp_path / "progress.train.json").read_text())

    now = [100.0]
    monkeypatch.setattr("po.training.checkpoint.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    callback = AttemptCallback(tmp_path, "abc", keep=False)
    state = TrainerState(global_step=4, max_steps=10, num_input_tokens_seen=400, is_world_process_zero=True)
    control = TrainerControl()
    callback.on_train_begin(None, state, control)
    first = {"step": 4, "total": 10, "first_step": 4, "tokens": 400, "first_tokens": 400}
    assert progress() == first
    state.global_step, state.num_input_tokens_seen = 5, 500
    callback.on_step_end(None, state, control)
    assert progress() == first  # not more than once a second
    now[0] += 1.5
    callback.on_step_end(None, state, control)
    assert progress() == first | {"step": 5, "tokens": 500}
    state.global_step, state.num_input_tokens_seen = 6, 600
    callback.on_train_end(None, state, control)
    assert progress() == first | {"step": 6, "tokens": 600}
    state.is_world_process_zero, state.global_step = False, 7
    callback.on_train_end(None, state, control)
    assert progress()["step"] == 6
