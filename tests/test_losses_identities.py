"""Losses that become one another at some value of a hyperparameter or input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worked_inputs import AVERAGED, CHOSEN_NLL, inputs_of, loss_of

from po.losses import anchored, averaged, displacement, ranked, reference_free, scored, transport, weighted
from po.methods import METHODS

nats = st.floats(-60, 0)
pairs = st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=5)
HERE = settings(max_examples=40, deadline=None)
# Method, its parameters, the method that it becomes, that one's parameters; worked out on the worked pairs.
SAME = [
    ("cdpo", {"eps": 0}, "dpo", {}),
    ("robust_dpo", {"eps": 0}, "dpo", {}),
    ("cdpo", {"eps": 0.2}, "dpo_gamma", {"gamma": 0, "eps": 0.2}),
    ("dpo_gamma", {"gamma": 0}, "dpo", {}),
    ("fpo", {"focus": 0}, "dpo", {}),
    ("focal_po", {"focus": 0}, "dpo", {}),
    ("fcpo", {"focus": 0}, "cpo", {"nll_weight": 0}),
    ("alphapo", {"alpha": 0}, "simpo", {"beta": 2.5}),
    ("ld_dpo", {"alpha": 1}, "dpo", {}),
    ("ld_dpo", {"alpha": 0}, "sampo", {}),  # where all tokens of a completion are equally likely
    ("dpop", {"lam": 0}, "dpo", {}),
    ("rpo", {"nll_weight": 0}, "dpo", {}),
    ("length_dpo", {"alpha": 0}, "dpo", {}),
    ("odpo", {"alpha": 0, "nonpositive": "zero"}, "dpo", {}),
    ("beta_dpo", {"sensitivity": 0}, "dpo", {}),
    ("tdpo2", {"alpha": 0}, "dpo", {}),
    ("tdpo2", {"alpha": 1}, "tdpo1", {}),
    ("f_dpo", {}, "dpo", {}),
    ("cpo_simpo", {"nll_weight": 0.7}, "simpo", {"nll_weight": 0.7}),
    ("ln_dpo", {"beta": 0.3}, "dpo", {"beta": 0.3}),
    ("orpo", {"odds_weight": 0, "nll_reduction": "seq_mean"}, "sft", {"nll_reduction": "seq_mean"}),
]


def columns(rows):
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "params", "other", "other_params"), SAME)
def test_a_loss_becomes_another_one_at_the_value_that_switches_its_own_part_off(
    name, params, other, other_params
):
    log_probs = {key: value for key, value in inputs_of(name, params).items() if not key.endswith("nll")}
    shared = {key: log_probs[key] for key in METHODS[other].inputs if key in log_probs}
    assert_equal(loss_of(name, params), loss_of(other, other_params, **shared))


@given(pairs, st.floats(0.01, 5), st.floats(0, 10))
@HERE
def test_dpo_with_a_margin_in_nats_is_dpo_gamma_with_beta_times_it(rows, beta, margin):
    with_margin = anchored.dpo(*columns(rows), beta=beta, margin=margin)
    assert_equal(with_margin, anchored.dpo_gamma(*columns(rows), beta=beta, gamma=beta * margin))


@given(pairs)
@HERE
def test_dpo_without_its_reference_is_the_preference_term_of_cpo(rows):
    chosen, rejected, *reference = columns(rows)
    free = anchored.dpo(chosen, rejected, *reference, reference_free=True)
    assert_equal(free, reference_free.cpo(chosen, rejected, nll_weight=0))


@given(pairs, st.floats(0.1, 3))
@HERE
def test_slic_without_its_nll_is_slic_dpo_with_a_zero_reference(rows, delta):
    chosen, rejected, *_ = columns(rows)
    zero = torch.zeros_like(chosen)
    hinge = reference_free.slic(chosen, rejected, delta=delta, nll_weight=0)
    assert_equal(hinge, anchored.slic_dpo(chosen, rejected, zero, zero, delta=delta))


@given(pairs, st.floats(0.01, 2))
@HERE
def test_odpo_with_one_gap_for_all_is_dpo_gamma(rows, gap):
    better = torch.full((len(rows),), gap, dtype=torch.float64)
    offset = scored.odpo(*columns(rows), better, 0 * better, transform="identity")
    assert_equal(offset, anchored.dpo_gamma(*columns(rows), gamma=gap))


@given(pairs, st.floats(0.01, 0.49))
@HERE
def test_soft_dpo_whose_labels_are_right_with_one_probability_is_cdpo(rows, eps):
    gap = torch.full((len(rows),), math.log((1 - eps) / eps), dtype=torch.float64)
    soft = scored.soft_dpo(*columns(rows), gap, 0 * gap)
    assert_equal(soft, METHODS["cdpo"].loss(*columns(rows), eps=eps))


@given(pairs)
@HERE
def test_pl_dpo_with_two_candidates_is_dpo(rows):
    chosen, rejected, reference_chosen, reference_rejected = columns(rows)
    policy = torch.stack([chosen, rejected], dim=1)
    reference = torch.stack([reference_chosen, reference_rejected], dim=1)
    everyone = torch.ones_like(policy, dtype=torch.bool)
    assert_equal(ranked.pl_dpo(policy, reference, everyone), anchored.dpo(*columns(rows)))


@given(st.tuples(nats, nats, nats, nats))
@HERE
def test_transport_of_one_pair_is_dpo(row):
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = columns([row])
    plain = anchored.dpo(*columns([row]))
    assert_equal(transport.aot(*columns([row])), plain)
    policy, reference = (
        torch.cat([policy_chosen, policy_rejected]),
        torch.cat([reference_chosen, reference_rejected]),
    )
    assert_equal(transport.aot_unpaired(policy, reference, torch.tensor([True, False])), plain)


@given(pairs)
@HERE
def test_arpo_that_rejects_in_full_is_cpo(rows):
    chosen, rejected, *_ = columns(rows)
    ten = torch.full_like(chosen, 10)
    full = displacement.arpo(chosen, rejected, None, ten, ten, tau_min=1.0, nll_weight=0)
    assert_equal(full, reference_free.cpo(chosen, rejected, nll_weight=0))


@given(pairs, st.floats(0, 2), st.floats(0.5, 5))
@HERE
def test_simpo_with_a_hinge_is_slic_with_a_wider_margin(rows, gamma, beta):
    chosen, rejected, *_ = columns(rows)
    hinge = averaged.simpo_hinge(chosen, rejected, beta=beta, gamma=gamma)
    assert_equal(hinge, reference_free.slic(chosen, rejected, beta=beta, delta=1 + gamma, nll_weight=0))


def test_the_focal_weights_of_fpo_and_fcpo_are_one_without_a_reference():
    inputs = inputs_of("fpo")
    free = {key: 0 * value if key.startswith("reference") else value for key, value in inputs.items()}
    assert_equal(weighted.fpo(**free), weighted.fcpo(**free))


def test_bco_of_both_completions_of_a_pair_is_bco_pair():
    each = loss_of("bco")
    assert_equal(each[:3] + each[3:], loss_of("bco_pair"))


def test_kto_of_both_completions_of_a_pair_at_zero_is_apo_zero():
    each = loss_of("apo_zero_unpaired")
    assert_equal(each[:3] + each[3:], loss_of("apo_zero"))


def test_soft_labels_of_one_make_sppo_hard():
    assert_equal(loss_of("sppo", {"labels": "soft"}, win_probability=torch.ones(3).double()), loss_of("sppo"))


def test_cpo_simpo_without_its_nll_is_simpo():
    chosen, rejected, nll = AVERAGED["policy_chosen"], AVERAGED["policy_rejected"], CHOSEN_NLL["seq_mean"]
    without = reference_free.cpo_simpo(chosen, rejected, nll, nll_weight=0)
    assert_equal(without, reference_free.simpo(chosen, rejected))


@pytest.mark.parametrize("name", [name for name, m in METHODS.items() if "nll_weight" in m.defaults])
def test_the_nll_adds_its_weight_times_its_value(name):
    difference = loss_of(name, {"nll_weight": 3, "nll_reduction": "seq_mean"}) - loss_of(
        name, {"nll_weight": 1, "nll_reduction": "seq_mean"}
    )
    assert_equal(difference, 2 * CHOSEN_NLL["seq_mean"])


@pytest.mark.parametrize("name", [name for name, m in METHODS.items() if "nll_weight" in m.defaults])
def test_an_nll_without_weight_is_left_out_even_if_it_is_nan(name):
    inputs = inputs_of(name)
    without = METHODS[name].loss(**inputs | {"chosen_nll": None}, nll_weight=0)
    nan = torch.full((3,), math.nan, dtype=torch.float64)
    with_nan = METHODS[name].loss(**inputs | {"chosen_nll": nan}, nll_weight=0)
    assert torch.isfinite(without).all()
    assert torch.equal(with_nan, without)


def test_the_log_odds_ratio_is_the_difference_of_logits():
    lead = reference_free.log_odds_ratio(AVERAGED["policy_chosen"], AVERAGED["policy_rejected"])
    logits = [torch.logit(AVERAGED[name].exp()) for name in ("policy_chosen", "policy_rejected")]
    assert_equal(lead, logits[0] - logits[1])
