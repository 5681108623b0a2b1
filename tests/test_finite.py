"""A training that has lost its weights ends, and is not published."""

import math

import pytest
import torch
from tiny_training import preference_trainer, random_pairs, tiny_llama

from po.faults import InputFault


@pytest.mark.parametrize("worst", [math.nan, math.inf])
@pytest.mark.parametrize(("hidden", "named"), [(False, "loss"), (True, "grad_norm")])
def test_a_loss_that_is_no_number_ends_training(tmp_path, worst, hidden, named):
    """Transformers hides such a loss unless told not to; the gradients show it all the same."""
    trainer = preference_trainer(
        tmp_path, tiny_llama(), random_pairs(4), "simpo", max_steps=5, logging_nan_inf_filter=hidden
    )
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = worst
    with pytest.raises(InputFault, match=rf"step 1: {named} is nan, .*lower learning_rate \(0.001\)"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_a_gradient_that_is_no_number_ends_training_at_its_last_step(tmp_path):
    trainer = preference_trainer(tmp_path, tiny_llama(), random_pairs(4), "simpo", max_steps=2)
    steps = []
    weight = trainer.model.model.norm.weight
    weight.register_hook(lambda slope: slope if len(steps) < 1 else slope * math.inf)
    step = trainer.training_step
    trainer.training_step = lambda *a: (step(*a), steps.append(1))[0]
    with pytest.raises(InputFault, match="step 2: grad_norm is"):
        trainer.train()


def test_a_learning_rate_that_is_far_too_large_is_named(tmp_path):
    trainer = preference_trainer(
        tmp_path, tiny_llama(), random_pairs(4), "cpo", max_steps=30, learning_rate=1e30, max_grad_norm=0.0
    )
    with pytest.raises(InputFault, match=r"lower learning_rate \(1e\+30\)"):
        trainer.train()
