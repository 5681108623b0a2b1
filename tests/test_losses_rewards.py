"""The rewards that are logged."""

from math import exp

import pytest
import torch
from torch import Tensor
from worked_inputs import inputs_of

from po.methods import METHODS

REWARDED = [name for name, method in METHODS.items() if method.rewards is not None]
# beta 0.1 of the log-ratios 0.5, -0.5, 0.75 and -1, 0.5, -1.
USUAL = ([0.05, -0.05, 0.075], [-0.1, 0.05, -0.1])


def rewards_of(name, params=None):
    method = METHODS[name]
    return method.rewards(inputs_of(name, params), method.check_params(params or {}))


def test_every_method_that_compares_completions_has_rewards():
    assert set(METHODS) - set(REWARDED) == {"sft"}


@pytest.mark.parametrize(
    ("name", "params", "chosen", "rejected"),
    [
        ("robust_dpo", {}, *USUAL),
        ("beta_dpo", {}, *USUAL),
        ("sppo", {}, *USUAL),
        ("aot", {}, *USUAL),
        ("discopop", {"beta": 0.1}, *USUAL),
        ("rebel", {"eta": 10}, *USUAL),
        ("ln_dpo", {"beta": 5}, [0.25, -0.15625, 0.625], [-5 / 12, 1 / 6, -0.625]),
        ("ld_dpo", {"alpha": 0.0}, [0.05, -0.046875, 0.075], [-1 / 12, 0.05, -0.075]),
        ("arpo", {}, [-1.2, -2.05, -0.725], [-1.4, -1.9, -0.95]),
        ("cpo_ipo", {}, [-0.12, -0.128125, -29 / 240], [-28 / 240, -38 / 300, -0.11875]),
        ("simper", {}, [exp(-1.2), exp(-1.28125), exp(-29 / 24)], [exp(-7 / 6), exp(-19 / 15), exp(-1.1875)]),
        ("pl_dpo", {}, [0.05, 0.05, 0.075], [-0.1, -0.1, -0.1]),
    ],
)
def test_rewards_have_their_worked_values(name, params, chosen, rejected):
    rewards = rewards_of(name, params)
    assert rewards[0].tolist() == pytest.approx(chosen, abs=1e-8)
    assert rewards[1].tolist() == pytest.approx(rejected, abs=1e-8)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.data == "unpaired"])
def test_rewards_of_single_completions_are_one_tensor_in_the_order_of_the_batch(name):
    rewards = rewards_of(name)
    assert isinstance(rewards, Tensor)
    assert rewards.tolist() == pytest.approx(USUAL[0] + USUAL[1])


@pytest.mark.parametrize("name", REWARDED)
def test_rewards_carry_no_gradient_and_have_an_entry_per_example(name):
    method, inputs = METHODS[name], inputs_of(name)
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.is_floating_point())
    rewards = method.rewards(inputs, method.check_params({}))
    sides = (rewards,) if isinstance(rewards, Tensor) else rewards
    assert not any(side.requires_grad for side in sides)
    assert {len(side) for side in sides} == {len(next(iter(inputs.values())))}
    assert all(torch.isfinite(side).all() for side in sides)
