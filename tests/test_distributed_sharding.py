"""A policy that two gloo processes shard between them (FSDP2) has the losses and gradients of a whole one."""

import copy

import pytest
import torch
from tiny_training import tiny_llama
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trainer_cases import SMALL, assert_same_gradients, moved, rows_for, step_gradients, trainer_for
from transformers import TrainerControl, TrainerState
from two_processes import in_two_processes

from po.faults import InputFault
from po.methods import METHODS
from po.moving_reference import MovingReference
from po.start_checks import FirstStepChanges

CASES = {
    "dpo": {},
    "rpo": {"nll_weight": 1.0},
    "kto": {"beta": 1.0},
    "bco": {"beta": 1.0},
    "pl_dpo": {},
    "tdpo2": {},
    "wpo": {},
}


def layered_llama(seed=0):
    return tiny_llama(seed, **SMALL | {"num_hidden_layers": 2}).double()


def shard(model, head=False):
    """As accelerate does: each layer by itself, the rest together; the head by itself where that is asked."""
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    if head:
        fully_shard(model.lm_head, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


def trainer_of(folder, name, rows=None):
    method, values = METHODS[name], METHODS[name].check_params(CASES.get(name, {}))
    start = layered_llama()
    rows = rows_for(method, values, 16, start) if rows is None else rows
    return trainer_for(folder, method, values, rows, moved(start), start), rows


def share(rows, rank, micro):
    """The rows of one process, where each takes every other micro-batch."""
    parts = [rows[i : i + micro] for i in range(0, len(rows), micro)]
    return [row for part in parts[rank::2] for row in part]


def whole(gradients):
    return {name: gradient.full_tensor() for name, gradient in gradients.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_policy_has_the_loss_and_gradients_of_a_whole_one(tmp_path, name):
    def work(rank):
        trainer, rows = trainer_of(tmp_path, name)
        shard(trainer.model)
        loss, gradients = step_gradients(trainer, share(rows, rank, 4), 4)
        torch.save((loss, whole(gradients)), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work)
    trainer, rows = trainer_of(tmp_path, name)
    loss, expected = step_gradients(trainer, rows, 8)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(part[0] for part in found) / 2 == pytest.approx(loss, rel=1e-6)
    for _, gradients in found:
        assert_same_gradients(gradients, expected, 1e-6)


def test_processes_with_other_numbers_of_rows_and_tokens_do_not_wait_for_one_another(tmp_path, monkeypatch):
    """Layers and head gather weights whenever they run, so every process must run them equally often."""
    monkeypatch.setattr("po.logps.CHUNK_BYTES", 4 * 60 * 8)  # eight tokens of the head at a time
    method, values = METHODS["pl_dpo"], METHODS["pl_dpo"].check_params({})
    start = layered_llama()
    rows = sorted(rows_for(method, values, 24, start), key=lambda row: len(row["candidates_ids"]))
    rows = [*rows[:8], *rows[-8:]]
    counts = [sum(len(row["candidates_ids"]) for row in part) for part in (rows[:8], rows[8:])]
    assert counts[0] // 8 != counts[1] // 8

    def work(rank):
        trainer, _ = trainer_of(tmp_path, "pl_dpo", rows)
        shard(trainer.model, head=True)
        loss, gradients = step_gradients(trainer, share(rows, rank, 8), 8)
        torch.save((loss, whole(gradients)), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work)
    trainer, _ = trainer_of(tmp_path, "pl_dpo", rows)
    loss, expected = step_gradients(trainer, rows, 16)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(part[0] for part in found) / 2 == pytest.approx(loss, rel=1e-6)
    assert_same_gradients(found[0][1], expected, 1e-6)


def test_a_reference_follows_a_sharded_policy_and_is_saved_and_loaded(tmp_path):
    start, policy = layered_llama(), moved(layered_llama())

    def work(rank):
        ours, theirs = copy.deepcopy(start), copy.deepcopy(policy)
        reference = MovingReference(
            ours, lambda: list(zip(ours.parameters(), theirs.parameters(), strict=True))
        )
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


def test_the_first_step_of_a_sharded_policy_is_watched(tmp_path):
    def work(rank):
        trainer, rows = trainer_of(tmp_path, "dpo")
        shard(trainer.model)
        step_gradients(trainer, share(rows, rank, 4), 4)
        for rate, refused in ((0.0, False), (1e-3, False), (1e-30, True)):
            watch, optimizer = FirstStepChanges(), torch.optim.SGD(trainer.model.parameters(), lr=rate)
            known = (trainer.args, TrainerState(), TrainerControl())
            watch.on_pre_optimizer_step(*known, model=trainer.model, optimizer=optimizer)
            optimizer.step()
            try:
                watch.on_optimizer_step(*known, model=trainer.model, optimizer=optimizer)
                assert not refused
            except InputFault as fault:
                assert refused and "changed no weights" in str(fault)

    in_two_processes(tmp_path, work)
