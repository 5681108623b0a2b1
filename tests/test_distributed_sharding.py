"""A policy that two gloo processes shard between them (FSDP2, by accelerate) trains as a whole one does."""

from types import SimpleNamespace

import pytest
import torch
from tiny_training import tiny_llama
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from trainer_cases import SMALL, assert_same_gradients, rows_for, start_and_policy, trainer_for
from transformers import TrainerCallback
from two_processes import in_two_processes

from po.engine.forward import completion_values
from po.faults import InputFault
from po.methods import METHODS
from po.models.sharding import keep_answers_exact
from po.training.collate import text_part
from po.training.start_checks import FirstStepChanges

CASES = {
    "dpo": {},
    "rpo": {"nll_weight": 1.0},
    "kto": {"beta": 1.0},
    "bco": {"beta": 1.0},
    "pl_dpo": {},
    "tdpo2": {},
    "tr_dpo": {"sync_steps": 1, "sync_mix": 0.5},
}


class WholeGradients(TrainerCallback):
    """Keeps the gradients of each optimizer step, gathered where they are sharded."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        self.steps.append({n: g.full_tensor() if sharded(g) else g.clone() for n, g in found.items()})


def sharded(tensor):
    return isinstance(tensor, DTensor)


def trained(folder, name, micro, dtype=torch.float64, **arguments):
    """Two steps of 16 examples; the trainer and the gradients of each step."""
    method, values = METHODS[name], METHODS[name].check_params(CASES[name])
    model = tiny_llama(**SMALL | {"num_hidden_layers": 2}).to(dtype)
    start, policy = start_and_policy(method, values, model)
    rows, seen = rows_for(method, values, 32, start), WholeGradients()
    settings = {"max_steps": 2, "optim": "adamw_torch_fused", "learning_rate": 0.01, "max_grad_norm": 1.0}
    trainer = trainer_for(
        folder, method, values, rows, policy, start, callbacks=[seen],
        per_device_train_batch_size=micro, gradient_accumulation_steps=2, **settings | arguments,
    )  # fmt: skip
    trainer.train()
    return trainer, seen.steps


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_policy_has_the_losses_and_gradients_of_a_whole_one(tmp_path, name, monkeypatch):
    """The head runs in several chunks, as it does with a large vocabulary."""
    monkeypatch.setattr("po.engine.logps.CHUNK_BYTES", 4 * 60 * 32)

    def work(rank):
        trainer, gradients = trained(tmp_path, name, 4)
        assert all(map(sharded, trainer.model.parameters()))
        assert trainer.is_fsdp_enabled and trainer.accelerator.num_processes == 2
        torch.save((losses(trainer), gradients, trainer.loss_state.state_dict()), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=True)
    trainer, expected = trained(tmp_path, name, 8)
    for rank in range(2):
        found_losses, found, state = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert found_losses == pytest.approx(losses(trainer), rel=1e-5)
        for ours, theirs in zip(found, expected, strict=True):
            assert max(gradient.norm() for gradient in theirs.values()) > 1e-4
            assert_same_gradients(ours, theirs, 1e-5)
        for key, value in trainer.loss_state.state_dict().items():
            assert state[key] == pytest.approx(value, rel=1e-6)


def answers(trainer, rows):
    """Summed log-probabilities under the trained policy, as a step sees them."""
    with torch.no_grad():
        return completion_values(trainer.model_wrapped, text_part(trainer.data_collator(rows)))[0]["logps"]


def test_in_bfloat16_a_sharded_policy_still_answers_in_float32(tmp_path):
    """Accelerate would round the answers to bfloat16, in which -25.83 and -25.88 are one number."""

    def work(rank):
        trainer, _ = trained(tmp_path, "dpo", 4, torch.float32, bf16=True, learning_rate=0.0)
        policy = trainer.accelerator.state.fsdp_plugin.mixed_precision_policy
        assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
        torch.save(answers(trainer, trainer.train_dataset[:8]), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=True)
    trainer, _ = trained(tmp_path, "dpo", 8, torch.float32, learning_rate=0.0)
    expected = answers(trainer, trainer.train_dataset[:8])
    found = torch.load(tmp_path / "0.pt")
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
    assert torch.allclose(found, expected, atol=0.3)


def test_a_learning_rate_that_rounding_loses_is_seen_in_a_sharded_policy_too(tmp_path):
    def work(rank):
        with pytest.raises(InputFault, match="the first step changed no weights"):
            trained(tmp_path, "dpo", 4, learning_rate=1e-30)

    in_two_processes(tmp_path, work, sharded=True)


def spread(whole):
    """A parameter whose rows lie in two processes, with itself as its gradient."""
    mesh = init_device_mesh("cpu", (2,))
    parameter = torch.nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
    parameter.grad = distribute_tensor(whole, mesh, [Shard(0)])
    return parameter


class Spread(torch.nn.Module):
    """Each process finds the largest slope of its own in another parameter."""

    def __init__(self, slope):
        super().__init__()
        self.first = spread(slope * torch.tensor([[1.0], [5.0]]))
        self.second = spread(slope * torch.tensor([[2.0], [3.0]]))
        self.low = spread(slope * torch.tensor([[0.1, 0.1]]))  # one row: the second process has nothing of it
        self.without = torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("slope", [1.0, 0.0])
def test_all_processes_watch_the_parameter_with_the_largest_slope_of_all(tmp_path, monkeypatch, slope):
    monkeypatch.setattr("po.training.start_checks.is_sharded", lambda model: True)
    optimizer = SimpleNamespace(param_groups=[{"lr": 1e-30}])

    def work(rank):
        model, check = Spread(slope), FirstStepChanges()
        if not slope:
            model.first.grad.to_local().fill_(float(rank))  # of the first process no part has a slope
        check.on_pre_optimizer_step(None, None, None, model=model, optimizer=optimizer)
        assert check._watched is model.first
        with pytest.raises(InputFault, match="the first step changed no weights"):
            check.on_optimizer_step(None, None, None, optimizer=optimizer)

    in_two_processes(tmp_path, work)


def test_fsdp_of_version_1_is_refused_and_no_fsdp_is_left_alone():
    first = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1)))
    with pytest.raises(InputFault, match="FSDP of version 1 is not offered; set fsdp_version to 2"):
        keep_answers_exact(first)
    keep_answers_exact(SimpleNamespace(state=SimpleNamespace()))
