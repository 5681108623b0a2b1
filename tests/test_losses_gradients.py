import math

import pytest
import torch
from worked_inputs import inputs_of, losses_and_gradients
from worked_values import START

from po.losses.stable import log1mexp
from po.methods import METHODS

COMPARING = [name for name, method in METHODS.items() if method.data != "supervised"]
PAIRED = [name for name, method in METHODS.items() if method.paired]
# What does not always push the chosen side up and the rejected side down on the worked pairs, and why.
NOT_MONOTONE = {
    "ipo": "pulls leads beyond its target back",
    "cpo_ipo": "pulls leads beyond its target back",
    "rebel": "pulls leads beyond the metric's gap back",
    "apo_down": "lowers the chosen side too",
    "arpo": "the gradient through tau widens the distance per token, whichever side is ahead",
    "discopop": "has a local minimum and a local maximum",
    "odpo": "drops pair 2",
}
TRAINED = ("policy_chosen", "policy_rejected", "policy", "policy_ranked", "chosen_nll", "rejected_kl")
BOTH_WAYS = {"detach_kl": False}  # finite differences see the leak


@pytest.mark.parametrize(("name", "params", "value", "chosen_slope", "rejected_slope"), START)
def test_losses_start_with_their_worked_value_and_gradient(name, params, value, chosen_slope, rejected_slope):
    n_tokens, method = 10, METHODS[name]
    factor = 1 / n_tokens if method.logps_for(method.check_params(params)) == "mean" else 1.0
    log_prob = torch.tensor([-12.0], dtype=torch.float64) * factor
    losses, chosen, rejected = losses_and_gradients(name, params, log_prob, log_prob, log_prob, log_prob)
    assert losses.sum().item() == pytest.approx(value, abs=1e-8, rel=0)
    assert chosen.item() * factor == pytest.approx(chosen_slope, abs=1e-8, rel=0)
    assert rejected.item() * factor == pytest.approx(rejected_slope, abs=1e-8, rel=0)


def test_every_method_that_compares_has_a_worked_start():
    assert {name for name, *_ in START} == set(COMPARING)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_agree_with_finite_differences(name):
    method = METHODS[name]
    params = {"nll_reduction": "seq_sum"} if method.needs_nll else {}
    params |= {key: value for key, value in BOTH_WAYS.items() if key in method.defaults}
    arguments = method.loss_arguments(method.check_params(params))
    inputs = inputs_of(name, params)
    for key in {"reference_rejected", "reference"} & set(inputs):
        inputs[key] += 0.01 * torch.arange(len(inputs[key]))  # no ties, where sorting has no derivative
    trained = [key for key in inputs if key in TRAINED]
    tensors = [inputs[key].requires_grad_() for key in trained]

    def loss(*given):
        return method.loss(**inputs | dict(zip(trained, given, strict=True)), **arguments)

    assert torch.autograd.gradcheck(loss, tensors, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in PAIRED if name not in NOT_MONOTONE])
def test_gradients_never_lower_the_chosen_or_raise_the_rejected_completion(name):
    inputs = inputs_of(name)
    sides = [inputs[key].requires_grad_() for key in ("policy_chosen", "policy_rejected")]
    METHODS[name].loss(**inputs).sum().backward()
    assert (sides[0].grad < 0).all()
    assert (sides[1].grad > 0).all()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.data == "unpaired"])
def test_gradients_raise_desirable_completions_and_lower_the_others(name):
    inputs = inputs_of(name)
    policy = inputs["policy"].requires_grad_()
    METHODS[name].loss(**inputs).sum().backward()
    assert policy.grad.sign().tolist() == [-1, -1, -1, 1, 1, 1]


@pytest.mark.parametrize("name", sorted(NOT_MONOTONE))
def test_a_method_that_is_called_not_monotone_is_not(name):
    lead = torch.tensor([-20.0, -5.0, -1.0, 0.5, 1.0, 5.0, 60.0], dtype=torch.float64)
    base, score = torch.full_like(lead, -100), torch.full_like(lead, 0.8)
    _, chosen, rejected = losses_and_gradients(
        name, {}, base + lead, base, base, base, chosen_score=score, rejected_score=1 - score.cumsum(0) / 10
    )
    assert not ((chosen < 0).all() and (rejected > 0).all())


def test_ipo_pulls_a_lead_beyond_its_target_back():
    zero = torch.zeros(2, dtype=torch.float64)
    lead = torch.tensor([4.9, 5.1], dtype=torch.float64)  # the target is 1 / (2 * 0.1) = 5
    _, chosen, rejected = losses_and_gradients("ipo", {"tau": 0.1}, lead, zero, zero)
    assert chosen.tolist() == pytest.approx([-0.2, 0.2])
    assert rejected.tolist() == pytest.approx([0.2, -0.2])


@pytest.mark.parametrize("name", ["slic_dpo", "slic", "simpo_hinge"])
def test_the_hinge_is_flat_from_its_kink_on(name):
    zero = torch.zeros(3, dtype=torch.float64)
    lead = torch.tensor([0.999, 1.0, 1.001], dtype=torch.float64)
    params = {"beta": 1, "delta": 1} | ({"gamma": 0} if name == "simpo_hinge" else {})
    _, chosen, _ = losses_and_gradients(name, params, lead, zero, zero)
    assert chosen.tolist() == [-1.0, 0.0, 0.0]


def test_below_the_reference_the_chosen_side_of_dpop_is_pulled_up_harder():
    zero = torch.zeros(3, dtype=torch.float64)
    below_at_above = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64)
    _, chosen, rejected = losses_and_gradients("dpop", {"lam": 5}, below_at_above, zero)
    assert chosen.tolist() == pytest.approx([-0.3, -0.05, -0.05])
    assert rejected.tolist() == pytest.approx([0.05, 0.05, 0.05])


def test_pairs_that_odpo_drops_have_no_gradient():
    lead, scores = torch.tensor([3.0, -3.0]), torch.tensor([0.5, 0.5])
    losses, chosen, rejected = losses_and_gradients(
        "odpo", {}, lead, -lead, chosen_score=scores, rejected_score=scores + torch.tensor([0.0, 0.2])
    )
    assert torch.stack([losses, chosen, rejected]).abs().max().item() == 0


def test_tdpo2_takes_the_distance_of_the_chosen_side_as_a_yardstick_only():
    zero = torch.zeros(1)
    slopes = {}
    for name in ("tdpo1", "tdpo2"):
        kl = [torch.ones(1, requires_grad=True) for _ in range(2)]
        METHODS[name].loss(zero, zero, zero, zero, *kl).sum().backward()
        slopes[name] = [side.grad for side in kl]
    assert [slope.item() for slope in slopes["tdpo1"]] == pytest.approx([-0.05, 0.05])
    assert slopes["tdpo2"][0] is None
    assert slopes["tdpo2"][1].item() == pytest.approx(0.5 * 0.05)


@pytest.mark.parametrize("detached", [False, True])
def test_the_gradient_through_the_tau_of_arpo_can_be_switched_off(detached):
    # Equal lengths of 10: m is -1.2 and -1.6, tau = e^(0.4 * 0.4) - 1.
    tau = math.expm1(0.16)
    chosen, rejected = torch.tensor([-12.0]).double(), torch.tensor([-16.0]).double()
    _, _, slope = losses_and_gradients("arpo", {"detach_tau": detached, "nll_weight": 0}, chosen, rejected)
    weight = 0.1 * torch.sigmoid(-0.1 * (chosen - tau * rejected))
    through_tau = (tau + 1) * 0.4 * -0.1 * rejected  # d tau / d rejected = -c2 (tau + 1) / 10
    assert slope.item() == pytest.approx((weight * (tau + (0 if detached else through_tau))).item(), rel=1e-9)


@pytest.mark.parametrize("distance", [0.0, 1.0, 1e3, 1e5])
def test_the_tau_of_arpo_ends_at_one_without_overflow(distance):
    rejected = torch.tensor([-10.0 * distance])
    losses, *slopes = losses_and_gradients("arpo", {"nll_weight": 0}, torch.zeros(1), rejected)
    tau = min(1.0, math.expm1(min(0.4 * distance, 10)))
    assert losses.item() == pytest.approx(torch.nn.functional.softplus(0.1 * tau * rejected).item(), abs=1e-6)
    assert all(torch.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("tiny", [-1e-9, -1e-8, -1e-7, -1e-6])
def test_orpo_has_no_nan_gradient_where_the_model_is_certain(tiny):
    certain, unsure = torch.tensor([tiny]), torch.tensor([-1.0])
    _, chosen, rejected = losses_and_gradients("orpo", {}, unsure, certain)
    assert chosen.item() < 0
    assert rejected.item() > 0


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.69, -0.7, -5.0])
def test_the_slope_of_log1mexp_is_exact_in_float32(x):
    tensor = torch.tensor([x], requires_grad=True)
    log1mexp(tensor).backward()
    value = torch.tensor([x], dtype=torch.float32).double()
    assert tensor.grad.item() == pytest.approx((value.exp() / value.expm1()).item(), rel=1e-5)


@pytest.mark.parametrize("x", [0.0, -1e-9, -1e-8])
def test_log1mexp_is_finite_at_and_near_zero_in_float32(x):
    tensor = torch.tensor([x], requires_grad=True)
    value = log1mexp(tensor)
    value.backward()
    assert -17 < value.item() < -15
    assert torch.isfinite(tensor.grad).all()
