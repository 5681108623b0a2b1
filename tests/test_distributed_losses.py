"""Two gloo processes give the losses and gradients of one process with the same global micro-batches."""

import pytest
import torch
from trainer_cases import (
    Gradients,
    assert_same_gradients,
    rows_for,
    small_llama,
    start_and_policy,
    trainer_for,
)
from two_processes import in_two_processes

from po.methods import METHODS

CASES = {
    "dpo": {},
    "rpo": {"nll_weight": 1.0},
    "kto": {"beta": 1.0},
    "bco": {"beta": 1.0},
    "beta_dpo": {},
    "pl_dpo": {},
    "tdpo2": {},
    "tr_dpo": {"sync_steps": 1, "sync_mix": 0.5},
}


def trained(folder, name, micro):
    """Two steps of 16 examples in micro-batches; gradients of each, and the log."""
    method = METHODS[name]
    values = method.check_params(CASES[name])
    start, policy = start_and_policy(method, values, small_llama())
    rows = rows_for(method, values, 32, start)
    seen = Gradients()
    trainer = trainer_for(
        folder, method, values, rows, policy, start, callbacks=[seen], max_steps=2, optim="sgd",
        per_device_train_batch_size=micro, gradient_accumulation_steps=2, max_grad_norm=1e9,
        learning_rate=0.1,
    )  # fmt: skip
    trainer.train()
    return trainer, seen.steps


def plain_log(trainer):
    return [
        {key: value for key, value in row.items() if not key.startswith("train_")}
        for row in trainer.state.log_history[:2]
    ]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_losses_and_gradients_of_one(tmp_path, name):
    """What is coupled (KTO's KL, BCO's shift, beta-DPO's margin) is coupled over the examples of both."""

    def work(rank):
        trainer, gradients = trained(tmp_path, name, 4)
        assert trainer.accelerator.num_processes == 2
        state = trainer.loss_state.state_dict()
        torch.save((plain_log(trainer), gradients, state), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work)
    trainer, expected = trained(tmp_path, name, 8)
    for rank in range(2):
        log, found, state = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for ours, theirs in zip(found, expected, strict=True):
            assert max(gradient.norm() for gradient in theirs.values()) > 1e-4
            assert_same_gradients(ours, theirs, 1e-5)
        for one, other in zip(log, plain_log(trainer), strict=True):
            assert one == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in other.items()}
        for key, value in trainer.loss_state.state_dict().items():
            assert state[key] == pytest.approx(value, rel=1e-6)
