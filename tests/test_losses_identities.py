import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worked_inputs import AVERAGED, CHOSEN_NLL, SUMMED, inputs_of, loss_of

from po.losses import anchored, reference_free
from po.methods import METHODS

PAIRED = [name for name, method in METHODS.items() if method.paired]
ANCHORED = [name for name in PAIRED if METHODS[name].needs_reference]

nats = st.floats(-60, 0)
pairs = st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=5)


def columns(rows):
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_dpo_gamma_with_gamma_zero_is_dpo(rows):
    assert_equal(anchored.dpo_gamma(*columns(rows), gamma=0.0), anchored.dpo(*columns(rows)))


@given(pairs, st.floats(0.01, 5), st.floats(0, 10))
@settings(max_examples=40, deadline=None)
def test_dpo_with_a_margin_in_nats_is_dpo_gamma_with_beta_times_it(rows, beta, margin):
    with_margin = anchored.dpo(*columns(rows), beta=beta, margin=margin)
    assert_equal(with_margin, anchored.dpo_gamma(*columns(rows), beta=beta, gamma=beta * margin))


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_dpo_without_its_reference_is_the_preference_term_of_cpo(rows):
    chosen, rejected, *reference = columns(rows)
    free = anchored.dpo(chosen, rejected, *reference, reference_free=True)
    assert_equal(free, reference_free.cpo(chosen, rejected, nll_weight=0))


@given(pairs, st.floats(0.1, 3))
@settings(max_examples=40, deadline=None)
def test_slic_without_its_nll_is_slic_dpo_with_a_zero_reference(rows, delta):
    chosen, rejected, *_ = columns(rows)
    zero = torch.zeros_like(chosen)
    hinge = reference_free.slic(chosen, rejected, delta=delta, nll_weight=0)
    assert_equal(hinge, anchored.slic_dpo(chosen, rejected, zero, zero, delta=delta))


def test_cpo_simpo_without_its_nll_is_simpo():
    chosen, rejected, nll = AVERAGED["policy_chosen"], AVERAGED["policy_rejected"], CHOSEN_NLL["seq_mean"]
    without = reference_free.cpo_simpo(chosen, rejected, nll, nll_weight=0)
    assert_equal(without, reference_free.simpo(chosen, rejected))


def test_simpo_with_an_nll_weight_is_cpo_simpo():
    assert_equal(loss_of("simpo", {"nll_weight": 0.7}), loss_of("cpo_simpo", {"nll_weight": 0.7}))


@pytest.mark.parametrize("name", ["cpo", "slic", "simpo", "cpo_simpo"])
def test_the_nll_adds_its_weight_times_its_value(name):
    difference = loss_of(name, {"nll_weight": 3, "nll_reduction": "seq_mean"}) - loss_of(
        name, {"nll_weight": 1, "nll_reduction": "seq_mean"}
    )
    assert_equal(difference, 2 * CHOSEN_NLL["seq_mean"])


@pytest.mark.parametrize("name", ["cpo", "slic", "simpo", "cpo_simpo"])
def test_an_nll_without_weight_is_left_out_even_if_it_is_nan(name):
    inputs = inputs_of(name)
    without = METHODS[name].loss(inputs["policy_chosen"], inputs["policy_rejected"], nll_weight=0)
    nan = torch.full((3,), math.nan, dtype=torch.float64)
    with_nan = METHODS[name].loss(inputs["policy_chosen"], inputs["policy_rejected"], nan, nll_weight=0)
    assert torch.isfinite(without).all()
    assert torch.equal(with_nan, without)


def test_orpo_without_its_odds_term_is_sft():
    assert_equal(
        loss_of("orpo", {"odds_weight": 0, "nll_reduction": "seq_mean"}),
        loss_of("sft", {"nll_reduction": "seq_mean"}),
    )


def test_the_log_odds_ratio_is_the_difference_of_logits():
    lead = reference_free.log_odds_ratio(AVERAGED["policy_chosen"], AVERAGED["policy_rejected"])
    logits = [torch.logit(AVERAGED[name].exp()) for name in ("policy_chosen", "policy_rejected")]
    assert_equal(lead, logits[0] - logits[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dpo", math.log(2)),
        ("dpo_gamma", math.log1p(math.exp(0.5))),
        ("slic_dpo", 1.0),
        ("ipo", 25.0),
        ("cpo", math.log(2)),
        ("slic", 1.0),
        ("simpo", math.log1p(math.exp(0.5))),
        ("cpo_simpo", math.log1p(math.exp(0.5))),
        ("orpo", 0.1 * math.log(2)),
    ],
)
def test_equal_completions_cost_what_no_lead_costs(name, expected):
    method = METHODS[name]
    same = {key: AVERAGED["policy_chosen"].clone() for key in method.inputs if key != "chosen_nll"}
    nll = {"chosen_nll": torch.zeros(3, dtype=torch.float64)} if method.needs_nll else {}
    assert method.loss(**same, **nll).tolist() == pytest.approx([expected] * 3, abs=1e-12)


def test_every_paired_method_has_a_value_for_equal_completions():
    marks = test_equal_completions_cost_what_no_lead_costs.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(PAIRED)


@pytest.mark.parametrize("name", METHODS)
def test_permuting_the_pairs_permutes_the_losses(name):
    method = METHODS[name]
    params = {"nll_reduction": "seq_mean"} if method.needs_nll else {}
    arguments = method.loss_arguments(method.check_params(params))
    order = torch.tensor([2, 0, 1])
    permuted = {key: tensor[order] for key, tensor in inputs_of(name, params).items()}
    losses = loss_of(name, params)
    assert_equal(method.loss(**permuted, **arguments), losses[order])
    assert losses.unique().numel() == 3


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.batch_coupled])
def test_the_loss_of_a_pair_does_not_depend_on_the_others(name):
    method = METHODS[name]
    params = {"nll_reduction": "seq_mean"} if method.needs_nll else {}
    arguments = method.loss_arguments(method.check_params(params))
    inputs = inputs_of(name, params)
    alone = [
        method.loss(**{key: tensor[[i]] for key, tensor in inputs.items()}, **arguments) for i in range(3)
    ]
    assert_equal(torch.cat(alone), loss_of(name, params))


@pytest.mark.parametrize("name", ANCHORED)
@given(pairs, st.floats(-20, 20))
@settings(max_examples=25, deadline=None)
def test_a_constant_on_both_log_probs_of_a_completion_changes_nothing(name, rows, constant):
    chosen, rejected, reference_chosen, reference_rejected = columns(rows)
    loss = METHODS[name].loss
    shifted = loss(chosen + constant, rejected, reference_chosen + constant, reference_rejected)
    torch.testing.assert_close(
        shifted, loss(chosen, rejected, reference_chosen, reference_rejected), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", [name for name in PAIRED if name != "orpo"])
@given(pairs, st.floats(-20, 20))
@settings(max_examples=25, deadline=None)
def test_a_constant_on_every_log_prob_of_a_pair_changes_nothing(name, rows, constant):
    method = METHODS[name]
    keys = [key for key in method.inputs if key != "chosen_nll"]
    inputs = dict(zip(keys, columns(rows), strict=False))
    weight = {"nll_weight": 0} if "nll_weight" in method.defaults else {}
    shifted = method.loss(**{key: tensor + constant for key, tensor in inputs.items()}, **weight)
    torch.testing.assert_close(shifted, method.loss(**inputs, **weight), rtol=1e-9, atol=1e-9)


def test_orpo_depends_on_the_level_of_the_log_probs_and_not_only_on_their_difference():
    nll = torch.zeros(3, dtype=torch.float64)
    chosen, rejected = AVERAGED["policy_chosen"], AVERAGED["policy_rejected"]
    change = METHODS["orpo"].loss(chosen - 1, rejected - 1, nll) - METHODS["orpo"].loss(chosen, rejected, nll)
    assert change.abs().min() > 1e-5


@pytest.mark.parametrize("name", PAIRED)
def test_column_inputs_are_refused_by_name(name):
    inputs = inputs_of(name)
    inputs["policy_rejected"] = inputs["policy_rejected"].unsqueeze(1)
    with pytest.raises(ValueError, match=r"policy_chosen \[3\].*policy_rejected \[3, 1\]"):
        METHODS[name].loss(**inputs)


def test_a_column_of_nll_values_is_refused_by_name():
    inputs = inputs_of("cpo", {"nll_reduction": "seq_mean"})
    inputs["chosen_nll"] = inputs["chosen_nll"].unsqueeze(1)
    with pytest.raises(ValueError, match=r"chosen_nll \[3, 1\]"):
        METHODS["cpo"].loss(**inputs)


def test_a_missing_nll_with_a_weight_is_refused():
    with pytest.raises(ValueError, match=r"nll_weight = 1\.0 needs chosen_nll"):
        METHODS["cpo"].loss(SUMMED["policy_chosen"], SUMMED["policy_rejected"])
