"""Values and gradients stay finite in float32 wherever training can get."""

import pytest
import torch
from worked_inputs import losses_and_gradients
from worked_values import START, WORKED

from po.methods import METHODS

# Each method under every setting for which the tests have a value.
CASES = {f"{name} {dict(params)}": (name, dict(params)) for name, params, *_ in START}
CASES |= {
    f"{w.method} {dict(w.params)}": (w.method, dict(w.params))
    for w in WORKED
    if METHODS[w.method].data != "supervised"
}
SUMMED = [
    case for case in CASES.values() if METHODS[case[0]].logps != "mean" or METHODS[case[0]].needs_reference
]
AVERAGED = [case for case in CASES.values() if METHODS[case[0]].logps == "mean"]


def assert_finite(results):
    assert [bool(torch.isfinite(tensor).all()) for tensor in results] == [True] * 3


@pytest.mark.parametrize(("name", "params"), SUMMED)
def test_values_and_gradients_are_finite_for_extreme_leads_in_float32(name, params):
    lead = torch.tensor([-1e4, -200.0, -1e-6, 0.0, 1e-6, 200.0, 1e4])
    zero = torch.zeros_like(lead)
    assert_finite(losses_and_gradients(name, params, lead, zero))
    assert_finite(losses_and_gradients(name, params, zero, -lead))
    assert_finite(losses_and_gradients(name, params, zero - 1e4, zero - 1e4, lead - 1e4, zero - 1e4))
    for shift in (-1e4, 1e4):
        assert_finite(losses_and_gradients(name, params, lead + shift, zero + shift))


@pytest.mark.parametrize(("name", "params"), AVERAGED)
def test_values_and_gradients_are_finite_for_extreme_averages_in_float32(name, params):
    # Every pair of averages, so that each is met as the chosen and as the rejected side.
    ends = torch.tensor([0.0, -1e-9, -1e-8, -1e-7, -1e-6, -0.6931, -0.6932, -1.0, -200.0, -1e4])
    chosen, rejected = torch.cartesian_prod(ends, ends).unbind(1)
    assert_finite(losses_and_gradients(name, params, chosen, rejected))


@pytest.mark.parametrize(("name", "params"), CASES.values())
def test_values_and_gradients_are_finite_for_very_long_completions(name, params):
    per_token, n_tokens = torch.tensor([-2.5, -1e-4]), 4096
    policy = per_token if METHODS[name].logps == "mean" else per_token * n_tokens
    reference = policy.mean().expand(2).clone()
    lengths = torch.full((2,), n_tokens)
    assert_finite(
        losses_and_gradients(
            name,
            params,
            policy,
            policy.flip(0),
            reference,
            reference,
            chosen_nll=lengths * 2.5,
            chosen_length=lengths,
            rejected_length=lengths // 4096,
        )
    )


@pytest.mark.parametrize("score", [0.0, 1.0, -3.0, 80.0])
@pytest.mark.parametrize("name", [name for name, m in METHODS.items() if "chosen_score" in m.inputs])
def test_scores_at_the_ends_of_their_scale_give_finite_losses(name, score):
    zero = torch.zeros(2)
    scores = {"chosen_score": torch.tensor([score, 0.5]), "rejected_score": torch.tensor([0.5, score])}
    cases = [params for other, params in CASES.values() if other == name]
    for params in cases:
        assert_finite(losses_and_gradients(name, params, zero, zero, **scores))


@pytest.mark.parametrize("entropy", [0.0, 1e-30, 1.0, 1.0000001])
def test_an_entropy_at_the_ends_of_its_scale_gives_a_finite_loss(entropy):
    lead, zero = torch.tensor([-1e4, 1e4]), torch.zeros(2)
    results = losses_and_gradients(
        "mallows_dpo", {}, lead, zero, reference_entropy=torch.full_like(lead, entropy)
    )
    assert_finite(results)
    assert (results[1] <= 0).all()  # never turned round


def test_padding_of_a_ranking_adds_nothing_even_if_it_is_nan():
    policy = torch.tensor([[-1.0, -2.0, torch.nan]], requires_grad=True)
    reference, mask = torch.zeros(1, 3), torch.tensor([[True, True, False]])
    loss = METHODS["pl_dpo"].loss(policy, reference, mask)
    loss.sum().backward()
    assert torch.equal(loss, METHODS["pl_dpo"].loss(policy[:, :2], reference[:, :2], mask[:, :2]))
    assert policy.grad[0, 2].item() == 0
    assert torch.isfinite(policy.grad).all()
