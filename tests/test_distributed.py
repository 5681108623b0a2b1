"""Two processes train the cell that one process trains."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import torch
from processes import until
from safetensors.torch import load_file
from tiny_training import add_dpo, change_training, make_experiment, read_log

from po import train
from po.training.checkpoint import MARKER

ROOT = pathlib.Path(__file__).parent.parent
TIMEOUT_S = 150
LAUNCH = [sys.executable, "-m", "experiments.launch", "--processes", "2"]

pytestmark = pytest.mark.slow


def launch(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*LAUNCH, *options, "po.train", str(folder)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(process):
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, errors


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def forget(folder):
    for name in ("model.json", "train.json", "train_log.jsonl"):
        (folder / name).unlink()


def timeless(row):
    return {name: value for name, value in row.items() if not name.startswith("train_")}


@pytest.fixture
def dpo(tmp_path):
    """A dpo cell whose 24 pairs divide into whole batches: accelerate fills the last one of an epoch up."""
    sft = make_experiment(tmp_path / "runs", n_rows=24)
    change_training(sft, max_steps=2)
    assert train.main([str(sft)]) == 0
    folder = add_dpo(sft.parents[1], sft)
    change_training(folder, per_device_batch_size=2, save_steps=3)
    return folder


def test_two_processes_train_what_one_trains(dpo):
    assert train.main([str(dpo)]) == 0
    expected, log = weights(dpo), read_log(dpo)
    forget(dpo)
    code, errors = finish(launch(dpo, "--config", "ddp"))
    assert code == 0, errors
    result = json.loads((dpo / "train.json").read_text())
    assert (result["processes"], result["steps"]) == (2, 6)
    for one, two in zip(log[:-1], read_log(dpo)[:-1], strict=True):
        near = {name: pytest.approx(value, rel=1e-4, abs=1e-5) for name, value in timeless(one).items()}
        assert timeless(two) == near
    found = weights(dpo)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name
    assert not (dpo / "attempts").exists()


def test_a_stopped_launch_is_interrupted_and_goes_on(dpo):
    change_training(dpo, epochs=400.0, save_steps=5)
    process = launch(dpo)
    marked = f"attempts/*/checkpoint-*/{MARKER}"
    until(lambda: list(dpo.glob(marked)) or process.poll() is not None, TIMEOUT_S)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 85, errors
    (marker,) = dpo.glob(f"attempts/*/checkpoint-*/{MARKER}")
    stopped = json.loads(marker.read_text())["step"]
    assert (marker.parent / "rng_state_1.pth").is_file()
    change_training(dpo, max_steps=stopped + 1)
    assert train.main([str(dpo)]) == 0
    assert json.loads((dpo / "train.json").read_text())["resumed"] is True


def test_bad_data_keep_their_exit_code(dpo):
    change_training(dpo, per_device_batch_size=8)
    code, errors = finish(launch(dpo))
    assert code == 65
    assert "global_batch_size 8 is not divisible by 2 processes x per_device_batch_size 8" in errors
