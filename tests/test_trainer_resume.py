"""Killed training goes on bitwise as if undisturbed, also where something remembers, draws or moves."""

import json
import os
import signal
import time

import pytest
import torch
from processes import fork, until, wait
from safetensors.torch import load_file
from tiny_training import MODEL, make_cell, make_experiment, random_pairs, read_log, write_rows

from po import train
from po.methods import METHODS, resolve
from po.training.checkpoint import INTERRUPTED, MARKER, AttemptCallback

CASES = {
    "bco": {"udm": True, "prompt_sample_size": 6},
    "kto": {},
    "beta_dpo": {"keep": 0.5},
    "tr_dpo": {"sync_steps": 2, "sync_mix": 0.6},
    "sampo": {},
    "mix(dpo, bco_pair)": {},
}
STALL_S = 30.0


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An experiment with an untrained model that all cells start from."""
    sft = make_experiment(tmp_path_factory.mktemp("resume") / "runs")
    root = sft.parents[1]
    rows = random_pairs(20)
    single = [
        {"prompt_ids": row["prompt_ids"], "completion_ids": row["chosen_ids"], "desirable": i % 3 > 0}
        for i, row in enumerate(rows)
    ]
    write_rows(root / "data" / "tiny.toy--0" / "unpaired.jsonl", single)
    folder = make_cell(root, "tiny.toy.base.s1--0", None)
    assert train.main([str(folder)]) == 0
    return folder


def cell(base, name, number):
    """A cell of a method below the untrained model, with a folder for the reference values that it needs."""
    root, method = base.parents[1], resolve(name)
    params = method.check_params(CASES[name])
    data = f"data/tiny.toy--0/{'unpaired' if method.data == 'unpaired' else 'train'}.jsonl"
    parent, reference = f"cells/{base.name}", None
    kinds = method.stored_reference(params)
    if kinds:
        reference = f"reference/{number}"
        (root / reference).mkdir(parents=True)
        unit = {
            "schema": 1, "model": MODEL, "parent": parent, "data": data, "precision": "fp32",
            "kinds": kinds, "form": "unpaired",
        }  # fmt: skip
        (root / reference / "unit.json").write_text(json.dumps(unit))
    train_part = {"method": name, "params": params, "data": data}
    names = {"parent": parent, "reference": reference}
    return make_cell(root, f"tiny.toy.{number}.s1--0", train_part, **names, logging_steps=1)


def run(folder):
    return train.main([str(folder)])


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def undisturbed(folder):
    """Weights and losses of a run from beginning to end, which is then forgotten."""
    assert run(folder) == 0
    found = weights(folder), losses(folder)
    for name in ("model.json", "train.json"):
        (folder / name).unlink()
    return found


def losses(folder):
    return [row["loss"] for row in read_log(folder) if "loss" in row]


def stall_after_step_3(monkeypatch):
    """The third step does not end before a signal comes, so that it finds the run in its middle."""
    on_step_end = AttemptCallback.on_step_end

    def stalled(self, args, state, control, **kwargs):
        end = time.monotonic() + STALL_S
        while state.global_step == 3 and not self._asked and time.monotonic() < end:
            time.sleep(0.002)
        return on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(AttemptCallback, "on_step_end", stalled)


def interrupted(folder, number):
    """Starts the run in a process of its own, ends it in its third step; what the run left behind stays."""
    child = fork(lambda: run(folder))
    until(lambda: list(folder.glob(f"attempts/*/checkpoint-2/{MARKER}")))
    time.sleep(0.05)
    os.kill(child, number)
    return wait(child)


@pytest.mark.parametrize("name", CASES)
def test_after_kill_9_every_kind_of_state_goes_on_to_the_same_weights(base, name, monkeypatch):
    folder = cell(base, name, f"kill{list(CASES).index(name)}")
    expected, expected_losses = undisturbed(folder)
    with monkeypatch.context() as patch:
        stall_after_step_3(patch)
        assert interrupted(folder, signal.SIGKILL) == -signal.SIGKILL
    assert not (folder / "model.json").exists()
    assert run(folder) == 0
    assert json.loads((folder / "train.json").read_text())["resumed"] is True
    found = weights(folder)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
    assert losses(folder) == expected_losses


@pytest.mark.parametrize("name", ["bco", "tr_dpo"])
def test_after_sigterm_states_go_on_to_the_same_weights(base, name, monkeypatch):
    folder = cell(base, name, f"term{list(CASES).index(name)}")
    expected, expected_losses = undisturbed(folder)
    with monkeypatch.context() as patch:
        stall_after_step_3(patch)
        assert interrupted(folder, signal.SIGTERM) == INTERRUPTED
    (marker,) = folder.glob(f"attempts/*/checkpoint-*/{MARKER}")
    assert json.loads(marker.read_text())["step"] == 3
    assert run(folder) == 0
    found = weights(folder)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
    assert losses(folder) == expected_losses


@pytest.mark.parametrize("name", ["bco", "beta_dpo", "tr_dpo"])
def test_what_a_checkpoint_keeps_is_needed(base, name, monkeypatch):
    """Without the kept state the same interruption ends elsewhere: the tests above would see a loss of it."""
    folder = cell(base, name, f"lost{list(CASES).index(name)}")
    expected, _ = undisturbed(folder)
    with monkeypatch.context() as patch:
        stall_after_step_3(patch)
        interrupted(folder, signal.SIGTERM)
    (checkpoint,) = [marker.parent for marker in folder.glob(f"attempts/*/checkpoint-*/{MARKER}")]
    if METHODS[name].reference_sync:
        monkeypatch.setattr("po.references.moving.MovingReference.load", lambda self, folder: None)
    else:
        assert (checkpoint / "loss_state.json").is_file()
        monkeypatch.setattr(METHODS[name].state, "load_state_dict", lambda self, state: None)
    assert run(folder) == 0
    found = weights(folder)
    assert any(not torch.equal(found[key], tensor) for key, tensor in expected.items())
