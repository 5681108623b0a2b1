import pytest
import torch
from worked_inputs import inputs_of

from po.methods import METHODS
from po.stable import log1mexp

# At the start of training: policy = reference, or both completions alike with 10 tokens and log-probability
# -12. Gradients are with respect to the summed log-probability, also where the loss averages; chosen_nll is
# held fixed.
START = [
    ("dpo", {}, 0.69314718, 0.05),
    ("slic_dpo", {}, 1.0, 0.1),
    ("ipo", {}, 25.0, 1.0),
    ("dpo_gamma", {}, 0.97407698, 0.06224593),
    ("cpo", {"nll_weight": 0}, 0.69314718, 0.05),
    ("slic", {"nll_weight": 0}, 1.0, 0.1),
    ("simpo", {"beta": 2, "gamma": 0.5}, 0.97407698, 0.12449187),
    ("simpo", {"beta": 0.1, "gamma": 0.5}, 0.97407698, 0.00622459),
    ("cpo_simpo", {}, 0.97407698, 0.12449187),
    ("orpo", {}, 0.06931472, 0.00715506),
]
PAIRED = [name for name, method in METHODS.items() if method.paired]
MONOTONE = [name for name in PAIRED if name != "ipo"]  # IPO pulls leads beyond its target back


def losses_and_gradients(name, params, policy_chosen, policy_rejected, reference=None, nll=0.0):
    """The losses and the gradients of their sum with respect to the two policy log-probabilities."""
    method = METHODS[name]
    chosen, rejected = policy_chosen.clone().requires_grad_(), policy_rejected.clone().requires_grad_()
    known = {
        "policy_chosen": chosen,
        "policy_rejected": rejected,
        "chosen_nll": torch.full_like(policy_chosen, nll),
    }
    if reference is not None:
        known |= {"reference_chosen": reference, "reference_rejected": reference}
    values = method.check_params(params)
    losses = method.loss(**{key: known[key] for key in method.inputs}, **method.loss_arguments(values))
    losses.sum().backward()
    return losses.detach(), chosen.grad, rejected.grad


@pytest.mark.parametrize(("name", "params", "value", "slope"), START)
def test_losses_start_with_their_worked_value_and_gradient(name, params, value, slope):
    summed, n_tokens = torch.tensor([-12.0], dtype=torch.float64), 10
    method = METHODS[name]
    factor = 1 / n_tokens if method.logps_for(method.check_params(params)) == "mean" else 1.0
    loss, chosen, rejected = losses_and_gradients(
        name, params, summed * factor, summed * factor, summed * factor
    )
    assert loss.item() == pytest.approx(value, abs=1e-8, rel=0)
    assert chosen.item() * factor == pytest.approx(-slope, abs=1e-8, rel=0)
    assert rejected.item() * factor == pytest.approx(slope, abs=1e-8, rel=0)


def test_every_paired_method_has_a_worked_start():
    assert {name for name, *_ in START} == set(PAIRED)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_agree_with_finite_differences(name):
    method = METHODS[name]
    params = {"nll_reduction": "seq_sum"} if method.needs_nll else {}
    arguments = method.loss_arguments(method.check_params(params))
    inputs = inputs_of(name, params)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(lambda *given: method.loss(*given, **arguments), tensors, atol=1e-7)


@pytest.mark.parametrize("name", MONOTONE)
def test_gradients_never_lower_the_chosen_or_raise_the_rejected_completion(name):
    inputs = inputs_of(name)
    reference = inputs.get("reference_chosen")
    _, chosen, rejected = losses_and_gradients(
        name, {}, inputs["policy_chosen"], inputs["policy_rejected"], reference
    )
    assert (chosen < 0).all()
    assert (rejected > 0).all()


def test_ipo_pulls_a_lead_beyond_its_target_back():
    zero = torch.zeros(2, dtype=torch.float64)
    lead = torch.tensor([4.9, 5.1], dtype=torch.float64)  # the target is 1 / (2 * 0.1) = 5
    _, chosen, rejected = losses_and_gradients("ipo", {"tau": 0.1}, lead, zero, zero)
    assert chosen.tolist() == pytest.approx([-0.2, 0.2])
    assert rejected.tolist() == pytest.approx([0.2, -0.2])


@pytest.mark.parametrize("name", ["slic_dpo", "slic"])
def test_the_hinge_is_flat_from_its_kink_on(name):
    zero = torch.zeros(3, dtype=torch.float64)
    lead = torch.tensor([0.999, 1.0, 1.001], dtype=torch.float64)
    _, chosen, _ = losses_and_gradients(name, {"beta": 1, "delta": 1}, lead, zero, zero)
    assert chosen.tolist() == [-1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "name", [name for name in PAIRED if METHODS[name].logps == "sum" or METHODS[name].needs_reference]
)
def test_values_and_gradients_are_finite_for_extreme_leads_in_float32(name):
    lead = torch.tensor([-1e4, -200.0, -1e-6, 0.0, 1e-6, 200.0, 1e4])
    zero = torch.zeros_like(lead)
    for results in (
        losses_and_gradients(name, {}, lead, zero, zero),
        losses_and_gradients(name, {}, zero, -lead, zero),
    ):
        assert all(torch.isfinite(tensor).all() for tensor in results)


@pytest.mark.parametrize("name", [name for name in PAIRED if METHODS[name].logps == "mean"])
def test_values_and_gradients_are_finite_for_extreme_averages_in_float32(name):
    # Every pair of averages, so that each is met as the chosen and as the rejected side.
    ends = torch.tensor([0.0, -1e-9, -1e-8, -1e-7, -1e-6, -0.6931, -0.6932, -1.0, -200.0, -1e4])
    chosen, rejected = torch.cartesian_prod(ends, ends).unbind(1)
    results = losses_and_gradients(name, {}, chosen, rejected, torch.zeros_like(chosen))
    assert all(torch.isfinite(tensor).all() for tensor in results)


@pytest.mark.parametrize("name", PAIRED)
def test_values_and_gradients_are_finite_for_very_long_completions(name):
    per_token, n_tokens = torch.tensor([-2.5, -1e-4]), 4096
    policy = per_token if METHODS[name].logps == "mean" else per_token * n_tokens
    results = losses_and_gradients(
        name, {}, policy, policy.flip(0), policy.mean().expand(2).clone(), nll=2.5 * n_tokens
    )
    assert all(torch.isfinite(tensor).all() for tensor in results)


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
