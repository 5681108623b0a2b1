"""The launcher: accelerate's configurations, exit codes, stops, and what becomes of its processes."""

import contextlib
import os
import pathlib
import signal

import pytest
from processes import fork, until, wait
from torch.distributed import TCPStore
from toy_worker import read_notes

from experiments import launch, launch_config
from experiments.launch_config import configured

HERE = pathlib.Path(__file__).parent
FSDP = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 4
machine_rank: 3
num_processes: 64
gpu_ids: 0,1
main_process_ip: 10.0.0.1
main_process_port: 1
mixed_precision: bf16
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: false
"""


@pytest.fixture(autouse=True)
def find_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))


def start(folder, *what, processes=1, options=()):
    command = ["--processes", str(processes), *options, "toy_worker", str(folder), *what]
    return fork(lambda: launch.main(command))


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@contextlib.contextmanager
def held_store(folder, run_id):
    """A store in a process of its own, as (pid, port)."""
    told = folder / "port"

    def hold():
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        store.set(run_id, "")
        (folder / "port.new").write_text(str(store.port))
        (folder / "port.new").rename(told)
        signal.pause()

    pid = fork(hold)
    try:
        until(told.exists)
        yield pid, int(told.read_text())
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# -- configurations


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("fspd2", "--config fspd2: no such configuration; did you mean 'fsdp2'? Known: ddp, fsdp2, zero3."),
        ("configs/mine.yaml", "--config configs/mine.yaml: there is no such file below "),
        ("mine.yml", "--config mine.yml: there is no such file below "),
    ],
)
def test_an_unknown_configuration_is_one_clear_error(config, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launch.main(["--processes", "2", "--config", config, "toy_worker", "x"]) == 65
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fsdp_version", "fsdp_versoin"), "no launcher reads 'fsdp_versoin'; did you mean 'fsdp_version'?"),
        (("distributed_type: FSDP", "distributed_type: 'NO'"), "MULTI_GPU, FSDP, DEEPSPEED do not"),
        (("num_machines", "machines"), "unknown keys"),
        (("distributed_type: FSDP", "distributed_type: [FSDP"), "while parsing"),
    ],
)
def test_a_file_that_accelerate_cannot_use_says_why(change, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(FSDP.replace(*change))
    with pytest.raises(ValueError) as error:
        configured(str(file), 2)
    assert message in str(error.value) and str(file) in str(error.value)


def test_a_file_says_how_to_share_a_model_but_neither_where_nor_in_which_precision(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(FSDP)
    found = configured(str(file), 2)
    assert (found["ACCELERATE_USE_FSDP"], found["FSDP_RESHARD_AFTER_FORWARD"]) == ("true", "false")
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"
    assert not {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MASTER_ADDR", "WORLD_SIZE"} & set(found)


def test_zero3_without_deepspeed_says_what_to_install(monkeypatch):
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(ValueError, match="DeepSpeed is not installed"):
        configured("zero3", 2)


def test_with_deepspeed_zero3_is_what_the_processes_are_told(monkeypatch):
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    found = configured("zero3", 2)
    assert (found["ACCELERATE_USE_DEEPSPEED"], found["ACCELERATE_DEEPSPEED_ZERO_STAGE"]) == ("true", "3")


def test_sharding_without_a_gpu_is_not_silently_left_out(monkeypatch, capsys):
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    monkeypatch.setattr(launch_config.torch.cuda, "is_available", lambda: False)
    configured("fsdp2", 2)
    assert "FSDP2 shares a model between GPUs only" in capsys.readouterr().err
    for name in ("ddp", "zero3"):  # DeepSpeed shards on CPUs too
        configured(name, 2)
        assert not capsys.readouterr().err


def test_the_workers_and_not_the_launcher_have_the_environment_of_the_configuration(tmp_path):
    before = dict(os.environ)

    def started():
        code = launch.main(
            ["--processes", "2", "--config", "fsdp2", "toy_worker", str(tmp_path), "give", "0"]
        )
        added = {name for name in os.environ if name not in before}
        return code or 10 * bool(added - {"TORCHELASTIC_SIGNALS_TO_HANDLE"})

    assert wait(fork(started)) == 0
    seen = [note["environment"] for note in read_notes(tmp_path)]
    assert [found["RANK"] for found in seen] == ["0", "1"]
    for found in seen:
        assert found["WORLD_SIZE"] == "2"
        assert (found["ACCELERATE_USE_FSDP"], found["FSDP_VERSION"]) == ("true", "2")
        assert found["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"


def test_one_process_can_have_a_configuration_too(tmp_path):
    assert wait(start(tmp_path, "give", "0", options=["--config", "fsdp2"])) == 0
    (note,) = read_notes(tmp_path)
    assert (note["environment"]["WORLD_SIZE"], note["environment"]["FSDP_VERSION"]) == ("1", "2")


# -- exit codes, stops, deaths


@pytest.mark.parametrize("code", [65, 76, 85])
def test_the_exit_code_of_the_processes_is_kept(code, tmp_path):
    assert wait(start(tmp_path, "give", str(code), processes=2)) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_lets_every_process_save_however_often_it_is_asked_for(number, tmp_path):
    pid = start(tmp_path, "save_slowly", processes=2)
    until(lambda: len(read_notes(tmp_path)) == 2)
    for _ in range(3):
        os.kill(pid, number)
        with contextlib.suppress(AssertionError):
            until((tmp_path / "saved.0").exists, 0.1)
    assert wait(pid) == 85
    assert (tmp_path / "saved.0").exists() and (tmp_path / "saved.1").exists()


def test_a_launcher_that_is_killed_leaves_no_process_behind(tmp_path):
    pid = start(tmp_path, "sleep", processes=2)
    until(lambda: len(read_notes(tmp_path)) == 2)
    os.kill(pid, signal.SIGKILL)
    assert wait(pid) == -signal.SIGKILL
    until(lambda: not any(is_alive(note["pid"]) for note in read_notes(tmp_path)))


def test_workers_do_not_take_the_rank_of_slurm_for_theirs(tmp_path, monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "PMI_RANK"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert wait(start(tmp_path, "give", "0")) == 0
    (note,) = read_notes(tmp_path)
    assert [name for name, value in note["environment"].items() if value == "7"] == []
    assert (note["environment"]["RANK"], note["environment"]["SLURM_JOB_ID"]) == ("0", "12")


def test_two_launches_at_once_never_meet(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    launchers = [start(folder, "give", "0", processes=2) for folder in folders]
    assert [wait(launcher) for launcher in launchers] == [0, 0]
    ports = [{note["environment"]["MASTER_PORT"] for note in read_notes(folder)} for folder in folders]
    assert [len(found) for found in ports] == [1, 1] and ports[0] != ports[1]
    assert [len(read_notes(folder)) for folder in folders] == [2, 2]


# -- several nodes


def meeting(port, run_id, nodes=2, rank=None):
    options = ["--nodes", str(nodes), "--rendezvous", f"127.0.0.1:{port}", "--run-id", run_id]
    return [*options, *([] if rank is None else ["--node-rank", str(rank)])]


def test_nodes_that_meet_in_a_store_count_their_ranks_by_node(tmp_path):
    with held_store(tmp_path, "mine") as (_, port):
        nodes = [
            start(tmp_path, "give", "0", processes=2, options=meeting(port, "mine", rank=rank))
            for rank in (1, 0)
        ]
        assert [wait(node) for node in nodes] == [0, 0]
    seen = [note["environment"] for note in read_notes(tmp_path)]
    assert [(found["RANK"], found["GROUP_RANK"], found["WORLD_SIZE"]) for found in seen] == [
        ("0", "0", "4"),
        ("1", "0", "4"),
        ("2", "1", "4"),
        ("3", "1", "4"),
    ]
    assert {found["MASTER_PORT"] for found in seen} == {str(port)}


def test_nobody_joins_the_store_of_another_run(tmp_path, capfd):
    with held_store(tmp_path, "theirs") as (_, port):
        assert wait(start(tmp_path, "give", "0", options=meeting(port, "mine", nodes=1, rank=0))) == 1
    assert f"127.0.0.1:{port} is another run's; set GRID_MASTER_ADDR" in capfd.readouterr().err
    assert read_notes(tmp_path) == []


def test_processes_end_with_the_one_that_holds_their_store(tmp_path):
    with held_store(tmp_path, "mine") as (holder, port):
        node = start(tmp_path, "sleep", options=meeting(port, "mine", nodes=1, rank=0))
        until(lambda: read_notes(tmp_path))
        os.kill(holder, signal.SIGKILL)
        assert wait(node, 20) == 1
    until(lambda: not is_alive(read_notes(tmp_path)[0]["pid"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "2"], "--nodes 2: several nodes need SLURM: sbatch slurm/grid.sh"),
        (meeting(1, "mine"), "node rank unknown of 2: give --node-rank, or start by srun"),
        (meeting(1, "mine", rank=2), "node rank 2 of 2"),
        (["--rendezvous", "n1", "--run-id", "x"], "--rendezvous n1: HOST:PORT is needed"),
        (["--rendezvous", "n1:1", "--node-rank", "0"], "--rendezvous needs --run-id"),
    ],
)
def test_several_nodes_need_a_place_to_meet(options, message, monkeypatch, capsys):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    assert launch.main(["--processes", "1", *options, "toy_worker", "x"]) == 65
    assert message in capsys.readouterr().err
