"""What losses and their entries do not take."""

import pytest
import torch
from worked_inputs import SUMMED, inputs_of

from po.losses import divergence, noise, scored
from po.methods import METHODS, ParameterError

# Those whose loss is written out, not put together from others.
PLAIN = [
    name
    for name, method in METHODS.items()
    if method.data != "supervised" and method.loss.__module__.startswith("po.losses")
]
COLUMNS = [(name, key) for name in PLAIN for key, tensor in inputs_of(name).items() if tensor.ndim]


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_column_inputs_are_refused_by_name(name, column):
    inputs = inputs_of(name)
    inputs[column] = inputs[column].unsqueeze(-1)
    weight = {"nll_weight": 1.0} if "nll_weight" in METHODS[name].defaults else {}
    with pytest.raises(ValueError, match="need one shape, one entry per example") as refusal:
        METHODS[name].loss(**inputs, **weight)
    assert f"{column} {list(inputs[column].shape)}" in str(refusal.value)


def test_a_column_of_win_probabilities_is_refused_by_name():
    inputs = inputs_of("sppo", {"labels": "soft"})
    inputs["win_probability"] = inputs["win_probability"].unsqueeze(1)
    with pytest.raises(ValueError, match=r"win_probability \[3, 1\]"):
        METHODS["sppo"].loss(**inputs, labels="soft")


def test_a_missing_nll_with_a_weight_is_refused():
    with pytest.raises(ValueError, match=r"nll_weight = 1\.0 needs chosen_nll"):
        METHODS["cpo"].loss(SUMMED["policy_chosen"], SUMMED["policy_rejected"])


def test_a_missing_win_probability_is_refused_where_labels_are_soft():
    with pytest.raises(ValueError, match="needs win_probability; give it, or take labels 'hard'"):
        scored.sppo(*SUMMED.values(), labels="soft")
    assert METHODS["sppo"].when == {"win_probability": ("labels", "soft")}
    assert "win_probability" not in inputs_of("sppo")


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (divergence.exo, {"eps": 0.0}, r"exo takes the logarithm of eps .* \(0, 0\.5\); 0\.0 was given"),
        (divergence.exo, {"eps": 0.5}, r"\(0, 0\.5\); 0\.5 was given"),
        (noise.robust_dpo, {"eps": 0.5}, r"divides by 1 - 2·eps .* \[0, 0\.5\); 0\.5 was given"),
        (divergence.f_dpo, {"divergence": "revers_kl"}, "unknown; did you mean 'reverse_kl'"),
    ],
)
def test_losses_refuse_values_at_which_they_have_no_meaning(loss, params, message):
    with pytest.raises(ValueError, match=message):
        loss(*SUMMED.values(), **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("soft_dpo", {"link": "logits"}, "link = 'logits' is unknown; did you mean 'logit'"),
        ("odpo", {"transform": "logarithm"}, "It may be log, identity"),
        ("odpo", {"nonpositive": "dropped"}, "did you mean 'drop'"),
        ("odpo", {"nonpositive": "signed"}, "a negative gap has no logarithm; take nonpositive 'drop'"),
        ("sppo", {"labels": "softer"}, "did you mean 'soft'"),
    ],
)
def test_losses_refuse_words_that_they_do_not_know(name, params, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name].loss(**inputs_of(name), **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("exo", {"eps": 0}, r"exo allows eps in \(0, 0\.5\) .*0 was given\. The loss takes the logarithm"),
        ("robust_dpo", {"eps": 0.5}, r"robust_dpo allows eps in \[0, 0\.5\)"),
        ("cdpo", {"label_smoothing": 0.5}, r"cdpo allows eps in \[0, 0\.5\)"),
        ("ropo", {"alpha": 1}, r"ropo allows alpha > 1"),
        ("mallows_dpo", {"phi": 0}, r"mallows_dpo allows phi > 0"),
        ("mallows_dpo", {"phi": -0.8}, r"mallows_dpo allows phi > 0"),
        ("discopop", {"discopop_tau": 0}, r"discopop allows temperature in \(0, 1\]"),
        ("f_dpo", {"divergence": "hellinger"}, "divergence = reverse_kl or js or forward_kl or alpha"),
        ("f_dpo", {"f_alpha_divergence_coef": 1.5}, r"f_dpo allows alpha in \[0, 1\]"),
        ("arpo", {"tau_min": -2}, r"arpo allows tau_min in \[-1, 1\] .* With -1 there is no floor"),
        ("arpo", {"c1": 0}, r"arpo allows c1 > 0"),
        ("kto", {"lam_D": -1}, r"kto allows desirable_weight >= 0"),
        ("odpo", {"alpha": -1}, r"odpo allows alpha >= 0"),
        ("rebel", {"eta": 0}, r"rebel allows eta > 0"),
        ("chi_po", {"clip": 0}, r"chi_po allows clip > 0"),
        ("fpo", {"gamma": -1}, r"fpo allows focus >= 0"),
        ("alphapo", {"alpha": 100}, r"alphapo allows alpha in \[-10, 10\]"),
        ("ipo", {"eps": 0.1}, "ipo has no parameter 'eps'"),
        ("sppo", {"eps": 0.1}, "sppo has no parameter 'eps'"),
    ],
)
def test_entries_refuse_values_that_their_loss_does_not_take(name, params, message):
    with pytest.raises(ParameterError, match=message):
        METHODS[name].check_params(params)


@pytest.mark.parametrize(
    ("name", "given", "canonical"),
    [
        ("rpo", "rpo_alpha", "nll_weight"),
        ("rpo", "alpha", "nll_weight"),
        ("arpo", "alpha", "nll_weight"),
        ("cpo_ipo", "cpo_alpha", "nll_weight"),
        ("cpo_ipo", "beta", "tau"),
        ("discopop", "tau", "temperature"),
        ("fpo", "gamma", "focus"),
        ("simpo_hinge", "simpo_gamma", "gamma"),
        ("ld_dpo", "ld_alpha", "alpha"),
        ("kto", "lam_U", "undesirable_weight"),
        ("exo", "label_smoothing", "eps"),
    ],
)
def test_names_of_papers_and_trainers_are_translated(name, given, canonical):
    assert METHODS[name].canonical({given: 0.25})[0] == {canonical: 0.25}


@pytest.mark.parametrize(
    ("name", "params", "advised"),
    [
        ("soft_dpo", {}, "between 0.27 and 0.73"),
        ("soft_dpo", {"scale": 10}, None),
        ("soft_dpo", {"link": "logit"}, None),
        ("odpo", {}, "smaller lead than DPO"),
        ("odpo", {"nonpositive": "signed"}, "will be refused"),
        ("odpo", {"transform": "identity"}, None),
        ("sppo", {}, "starts at 50"),
        ("sppo", {"beta": 1}, None),
        ("cal_dpo", {}, "starts at 25"),
        ("rebel", {}, "0.1 nats only"),
        ("rebel", {"eta": 50}, None),
        ("discopop", {}, "narrows the leads"),
        ("discopop", {"temperature": 0.2}, None),
        ("arpo", {}, None),
        ("arpo", {"c1": 0.9}, None),
        ("arpo", {"c1": 0.9, "tau_min": -1}, "made likelier"),
        ("ln_dpo", {}, None),
        ("ln_dpo", {"beta": 0.1}, "beta counts per token"),
        ("robust_dpo", {}, "no lower bound"),
        ("robust_dpo", {"eps": 0}, None),
        ("cpo_ipo", {}, "hardly ever reached"),
        ("simpo_hinge", {"beta": 0.1}, "hardly ever reached"),
    ],
)
def test_values_that_are_seldom_meant_are_advised_against(name, params, advised):
    method = METHODS[name]
    advice = method.advice(method.check_params(params))
    assert len(advice) == (advised is not None)
    assert advised is None or advised in advice[0]


def test_the_advice_on_discopop_follows_its_slope_at_the_start():
    for temperature in (0.102, 0.1028):
        lead, zero = torch.zeros(1, dtype=torch.float64, requires_grad=True), torch.zeros(1).double()
        METHODS["discopop"].loss(lead, zero, zero, zero, temperature=temperature).backward()
        values = METHODS["discopop"].check_params({"temperature": temperature})
        assert bool(METHODS["discopop"].advice(values)) == (lead.grad.item() > 0)
