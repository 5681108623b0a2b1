"""Sharded policies: references that follow them, cells that are killed, processes with unequal shares."""

import copy
import json
import os
import signal

import pytest
import torch
from processes import until, wait
from safetensors.torch import load_file
from tiny_training import MODEL, make_cell, make_experiment, read_log, tiny_llama
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trainer_cases import SMALL, assert_same_gradients, moved, rows_for, step_gradients, trainer_for
from two_processes import in_two_processes, start_two_processes

from po import train
from po.methods import METHODS
from po.references.moving import MovingReference
from po.training.checkpoint import MARKER, AttemptCallback


def layered_llama(seed=0):
    return tiny_llama(seed, **SMALL | {"num_hidden_layers": 2}).double()


def shard(model):
    """Each layer by itself, and the head by itself: it gathers its weights each time that it runs."""
    mesh = init_device_mesh("cpu", (2,))
    for module in (*model.model.layers, model.lm_head, model):
        fully_shard(module, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


def test_processes_with_other_numbers_of_rows_and_tokens_do_not_wait_for_one_another(tmp_path, monkeypatch):
    """Layers and head gather weights whenever they run, so every process must run them equally often."""
    monkeypatch.setattr("po.engine.logps.CHUNK_BYTES", 4 * 60 * 8)  # eight tokens of the head at a time
    method, values = METHODS["pl_dpo"], METHODS["pl_dpo"].check_params({})
    start = layered_llama()
    rows = sorted(rows_for(method, values, 24, start), key=lambda row: len(row["candidates_ids"]))
    shares = [rows[:8], rows[-8:]]
    counts = [sum(len(row["candidates_ids"]) for row in share) for share in shares]
    assert counts[0] // 8 != counts[1] // 8  # groups of rows of similar length

    def trainer():
        return trainer_for(tmp_path, method, values, [*shares[0], *shares[1]], moved(start), start)

    def work(rank):
        sharded = trainer()
        shard(sharded.model)
        loss, gradients = step_gradients(sharded, shares[rank], 8)
        torch.save((loss, {n: g.full_tensor() for n, g in gradients.items()}), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work)
    loss, expected = step_gradients(trainer(), [*shares[0], *shares[1]], 16)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(part[0] for part in found) / 2 == pytest.approx(loss, rel=1e-6)
    assert_same_gradients(found[0][1], expected, 1e-6)


def test_a_reference_follows_a_sharded_policy_and_is_saved_and_loaded(tmp_path):
    start, policy = layered_llama(), moved(layered_llama())

    def work(rank):
        ours, theirs = copy.deepcopy(start), copy.deepcopy(policy)
        pairs = [ours, theirs]
        reference = MovingReference(ours, lambda: list(zip(*(m.parameters() for m in pairs), strict=True)))
        shard(theirs)
        reference.follow(0.6)
        torch.save(ours.state_dict(), tmp_path / f"{rank}.pt")
        reference.save(tmp_path, writes=rank == 0)
        torch.distributed.barrier()
        shard(ours)  # a reference that is sharded too
        reference.follow(1.0)
        for parameter, target in zip(ours.parameters(), policy.parameters(), strict=True):
            assert torch.allclose(parameter.full_tensor(), target, atol=1e-12)
        reference.load(tmp_path)
        for key, tensor in torch.load(tmp_path / f"{rank}.pt").items():
            assert torch.equal(ours.state_dict()[key].full_tensor(), tensor)

    in_two_processes(tmp_path, work)
    expected = {key: tensor.lerp(policy.state_dict()[key], 0.6) for key, tensor in start.state_dict().items()}
    for rank in range(2):
        for key, tensor in torch.load(tmp_path / f"{rank}.pt").items():
            assert torch.equal(tensor, expected[key]), key


@pytest.fixture
def cell(tmp_path, request):
    """A cell of a method below an untrained model; 24 pairs make whole batches for two processes."""
    root = make_experiment(tmp_path / "runs", n_rows=24).parents[1]
    base = make_cell(root, "tiny.toy.base.s1--0", None)
    assert train.main([str(base)]) == 0
    method = METHODS[request.param]
    params = method.check_params({"sync_steps": 2.0} if method.reference_sync else {})
    parent, data = f"cells/{base.name}", "data/tiny.toy--0/train.jsonl"
    (root / "reference" / "0").mkdir(parents=True)
    unit = {
        "schema": 1, "model": MODEL, "parent": parent, "data": data, "precision": "fp32",
        "kinds": method.stored_reference(params), "form": "unpaired",
    }  # fmt: skip
    (root / "reference" / "0" / "unit.json").write_text(json.dumps(unit))
    part = {"method": method.name, "params": params, "data": data}
    more = {"parent": parent, "reference": "reference/0" if unit["kinds"] else None}
    return make_cell(root, "tiny.toy.x.s1--0", part, **more, per_device_batch_size=2, logging_steps=1)


def outcome(folder):
    """Weights and losses of a trained cell, which is then forgotten."""
    found = load_file(folder / "model" / "model.safetensors")
    losses = [row["loss"] for row in read_log(folder) if "loss" in row]
    for name in ("model.json", "train.json"):
        (folder / name).unlink()
    return found, losses


def killed_in_step_3(folder, work, monkeypatch):
    """Two processes, both killed in their third step, when they have kept a checkpoint of the second."""
    on_step_end = AttemptCallback.on_step_end

    def stalled(self, args, state, control, **kwargs):
        while state.global_step == 3:
            signal.pause()
        return on_step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(AttemptCallback, "on_step_end", stalled)
        children = start_two_processes(folder.parent, work, sharded=True)
    try:
        until(lambda: list(folder.glob(f"attempts/*/checkpoint-2/{MARKER}")), 60)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert [wait(child) for child in children] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("cell", ["bco", "tr_dpo"], indirect=True)
def test_a_sharded_cell_trains_as_a_whole_one_and_goes_on_after_kill_9(cell, monkeypatch):
    def work(rank):
        return train.main([str(cell)])

    assert train.main([str(cell)]) == 0
    whole, whole_losses = outcome(cell)
    in_two_processes(cell.parent, work, sharded=True)
    sharded, sharded_losses = outcome(cell)
    assert sharded_losses == pytest.approx(whole_losses, rel=1e-4)
    for name, tensor in whole.items():
        assert torch.allclose(sharded[name], tensor, rtol=1e-4, atol=1e-5), name
    killed_in_step_3(cell, work, monkeypatch)
    in_two_processes(cell.parent, work, sharded=True)
    assert json.loads((cell / "train.json").read_text())["resumed"] is True
    again, again_losses = outcome(cell)
    assert again_losses == sharded_losses
    for name, tensor in sharded.items():
        assert torch.equal(again[name], tensor), name
