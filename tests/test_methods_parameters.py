import math

import pytest

from po.methods import METHODS, ParameterError
from po.methods.hyperparameters import Choice


@pytest.mark.parametrize(
    ("method", "given", "name"),
    [
        ("dpo_gamma", "label_smoothing", "eps"),
        ("simpo", "simpo_gamma", "gamma"),
        ("simpo", "margin", "gamma"),
        ("simpo", "sft_weight", "nll_weight"),
        ("cpo", "cpo_alpha", "nll_weight"),
        ("cpo", "alpha", "nll_weight"),
        ("cpo_simpo", "cpo_alpha", "nll_weight"),
        ("slic", "lambda_sft", "nll_weight"),
        ("slic", "lam", "nll_weight"),
        ("ipo", "beta", "tau"),
        ("orpo", "beta", "odds_weight"),
        ("orpo", "lambda", "odds_weight"),
    ],
)
def test_old_names_of_hyperparameters_are_translated_with_a_note(method, given, name):
    params, notes = METHODS[method].canonical({given: 0.25})
    assert params == {name: 0.25}
    assert notes == (f"{method}: '{given}' is read as '{name}'.",)
    assert METHODS[method].check_params({given: 0.25})[name] == 0.25


def test_canonical_names_pass_without_a_note():
    assert METHODS["dpo"].canonical({"beta": 0.2, "margin": 1.0}) == ({"beta": 0.2, "margin": 1.0}, ())


def test_the_margin_of_dpo_is_in_nats_and_no_name_for_the_gamma_of_dpo_gamma():
    assert METHODS["dpo"].check_params({"margin": 0.5})["margin"] == 0.5
    with pytest.raises(ParameterError, match="dpo_gamma has no parameter 'margin'"):
        METHODS["dpo_gamma"].check_params({"margin": 0.5})


@pytest.mark.parametrize(
    ("params", "gamma"),
    [
        ({"beta": 2.5, "gamma_beta_ratio": 0.55}, 1.375),
        ({"gamma_beta_ratio": 0.25}, 0.5),  # beta is 2 by default
        ({"beta": 10, "gamma_beta_ratio": 0}, 0.0),
    ],
)
def test_a_ratio_of_gamma_to_beta_is_stored_as_gamma(params, gamma):
    values = METHODS["simpo"].check_params(params)
    assert values["gamma"] == pytest.approx(gamma)
    assert "gamma_beta_ratio" not in values


def test_a_ratio_is_noted():
    assert METHODS["dpo_gamma"].canonical({"gamma_beta_ratio": 5, "beta": 0.1}) == (
        {"beta": 0.1, "gamma": 0.5},
        ("dpo_gamma: gamma_beta_ratio 5 is stored as gamma 0.5 (beta 0.1).",),
    )


def test_gamma_and_its_ratio_are_never_taken_together():
    with pytest.raises(ParameterError, match="gamma and gamma_beta_ratio set the same margin"):
        METHODS["simpo"].canonical({"gamma": 0.5, "gamma_beta_ratio": 0.25})


def test_a_ratio_is_refused_where_there_is_no_gamma():
    with pytest.raises(ParameterError, match="dpo has no parameter 'gamma_beta_ratio'"):
        METHODS["dpo"].check_params({"gamma_beta_ratio": 0.25})


def test_a_bad_ratio_is_refused_under_its_own_name():
    with pytest.raises(ParameterError, match=r"simpo allows gamma_beta_ratio >= 0 .*; -1 was given"):
        METHODS["simpo"].check_params({"gamma_beta_ratio": -1})


def test_one_hyperparameter_under_two_names_is_refused():
    with pytest.raises(ParameterError, match="cpo: nll_weight is given twice, once as 'cpo_alpha'"):
        METHODS["cpo"].canonical({"nll_weight": 1.0, "cpo_alpha": 0.5})


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("dpo", {"beta": -0.1}, r"dpo allows beta > 0 \(reward per nat\); -0\.1 was given"),
        ("dpo", {"beta": 0}, r"dpo allows beta > 0 \(reward per nat\); 0 was given"),
        ("dpo_gamma", {"gamma": -0.5}, r"dpo_gamma allows gamma >= 0 \(reward\); -0\.5 was given"),
        ("cpo", {"eps": 0.5}, r"cpo allows eps in \[0, 0\.5\) \(probability\); 0\.5 was given"),
        ("cpo", {"label_smoothing": 0.7}, r"cpo allows eps in \[0, 0\.5\)"),
        ("ipo", {"tau": math.nan}, r"ipo allows tau > 0 \(1 per nat\); nan was given"),
        ("ipo", {"tau": math.inf}, r"ipo allows tau > 0 \(1 per nat\); inf was given"),
        ("simpo", {"beta": "2"}, r"simpo allows beta > 0 .*; '2' was given"),
        ("simpo", {"beta": True}, r"simpo allows beta > 0 .*; True was given"),
        ("simpo", {"beta": None}, r"simpo allows beta > 0 .*; None was given"),
        ("dpo", {"reference_free": 1}, r"dpo allows reference_free = false or true .*; 1 was given"),
        (
            "orpo",
            {"nll_reduction": "mean"},
            r"nll_reduction = token_batch or seq_mean or seq_sum .*'mean' was given",
        ),
        (
            "cpo_simpo",
            {"nll_weight": 0},
            r"nll_weight > 0 \(weight\); 0 was given\. With nll_weight 0 .* simpo",
        ),
        ("dpo", {"bata": 0.1}, r"dpo has no parameter 'bata'; did you mean 'beta'\? It has: beta, margin"),
        ("dpo", {"label_smoothing": 0.1}, r"dpo has no parameter 'label_smoothing'"),
        ("slic_dpo", {"eps": 0.1}, r"slic_dpo has no parameter 'eps'"),
        ("dpo", {"nll_reduction": "seq_sum"}, r"dpo has no parameter 'nll_reduction'"),
        ("dpo", {"length_norm": True}, r"dpo has no parameter 'length_norm'"),
        ("orpo", {"nll_weight": 1.0}, r"orpo has no parameter 'nll_weight'"),
    ],
)
def test_values_and_names_that_a_method_does_not_take_are_refused(method, params, message):
    with pytest.raises(ParameterError, match=message) as refusal:
        METHODS[method].check_params(params)
    assert isinstance(refusal.value, ValueError)
    assert list(refusal.value.faults) == list(params)


def test_all_faults_are_reported_at_once_under_the_names_that_were_given():
    with pytest.raises(ParameterError) as refusal:
        METHODS["cpo"].check_params({"beta": -1, "label_smoothing": 2, "cpo_alpha": 1.0, "gama": 1})
    assert set(refusal.value.faults) == {"beta", "label_smoothing", "gama"}
    assert all(fault in str(refusal.value) for fault in refusal.value.faults.values())


def test_whole_numbers_and_floats_are_one_value():
    values = METHODS["dpo"].check_params({"beta": 1})
    assert isinstance(values["beta"], float)
    assert values == {"beta": 1.0, "margin": 0.0, "reference_free": False}


@pytest.mark.parametrize("name", METHODS)
def test_checked_values_pass_the_check_unchanged(name):
    values = METHODS[name].check_params({})
    assert METHODS[name].check_params(values) == values


@pytest.mark.parametrize(
    ("name", "params", "advised"),
    [
        ("simpo", {}, False),
        ("simpo", {"beta": 0.1}, True),  # 0.5 / 0.1 = 5 nats per token
        ("cpo_simpo", {"beta": 0.1, "gamma": 0.2}, False),  # exactly 2
        ("ipo", {}, True),  # 1 / (2 * 0.1) = 5 nats per token
        ("ipo", {"tau": 0.5}, False),
        ("ipo", {"length_norm": False}, False),
        ("dpo_gamma", {"beta": 0.1}, False),
    ],
)
def test_targets_that_are_hardly_ever_reached_are_advised_against(name, params, advised):
    method = METHODS[name]
    advice = method.advice(method.check_params(params))
    assert bool(advice) == advised
    assert all("nats per token" in text for text in advice)


def test_a_choice_takes_only_its_own_values():
    choice = Choice((False, True), "whether")
    assert [choice.allows(value) for value in (True, False, 0, 1, "true", None, [True])] == [True, True] + [
        False
    ] * 5
