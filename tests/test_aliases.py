"""Names of methods and options elsewhere: what they are here, which are refused, and with what advice."""

import pytest

from po.methods import METHODS, MethodError, ParameterError, resolve
from po.methods.aliases import ADVICE, AMBIGUOUS, METHOD_ALIASES, PARAMETER_ALIASES, PRESETS

DPO_TRAINER = {
    "sigmoid": "dpo",
    "hinge": "slic_dpo",
    "ipo": "ipo",
    "exo_pair": "exo",
    "nca_pair": "nca",
    "robust": "robust_dpo",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo",
    "aot": "aot",
    "aot_pair": "aot_unpaired",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
    "sft": "sft",
    "sigmoid_norm": "ln_dpo",
    "kto_pair": "kto_pair",
}
CPO_TRAINER = {
    "sigmoid": "cpo",
    "hinge": "slic",
    "ipo": "cpo_ipo",
    "simpo": "cpo_simpo",
    "alphapo": "alphapo",
}
KTO_TRAINER = {"kto": "kto", "apo_zero_unpaired": "apo_zero_unpaired", "bco": "bco"}
CUSTOM_PO = {
    "simpo": "simpo",
    "dpo-gamma": "dpo_gamma",
    "mallows-dpo": "mallows_dpo",
    "ipo": "ipo",
    "kto_pair": "kto_pair",
    "orpo": "orpo",
    "fpo": "fpo",
    "fcpo": "fcpo",
    "mpo": "soft_dpo",
    "ropo": "ropo",
}
NAMES = (
    {f"dpo:{name}": method for name, method in DPO_TRAINER.items()}
    | {f"cpo:{name}": method for name, method in CPO_TRAINER.items()}
    | {f"kto:{name}": method for name, method in KTO_TRAINER.items()}
    | {f"custom_po:{name}": method for name, method in CUSTOM_PO.items()}
    | {"orpo:orpo": "orpo", "bco:bco": "bco", "simpo:sigmoid": "simpo", "simpo:hinge": "simpo_hinge"}
    | {
        "BCOTrainer": "bco",
        "aot_pair": "aot_unpaired",
        "cpo-simpo": "cpo_simpo",
        "dpo+sft": "rpo",
        "dpo-gamma": "dpo_gamma",
        "dpo-positive": "dpop",
        "exo_pair": "exo",
        "irpo": "rpo",
        "ld_alpha": "ld_dpo",
        "mallows-dpo": "mallows_dpo",
        "nca_pair": "nca",
        "nll": "sft",
        "plackett-luce": "pl_dpo",
        "r-dpo": "length_dpo",
        "rdpo_noise": "robust_dpo",
        "robust": "robust_dpo",
        "rpo_alpha": "rpo",
        "rso": "slic_dpo",
        "sigmoid_norm": "ln_dpo",
        "slic-cpo": "slic",
        "slic-dpo": "slic_dpo",
        "slic_cpo": "slic",
        "smaug": "dpop",
        "sppo_hard": "sppo",
        "sync_ref_model": "tr_dpo",
        "use_weighting": "wpo",
    }
)


def test_every_alias_is_known_to_these_tests():
    assert dict(METHOD_ALIASES) == NAMES


@pytest.mark.parametrize(("name", "method"), NAMES.items())
def test_a_name_of_another_project_resolves(name, method):
    assert resolve(name).name == method


def test_no_name_means_two_things():
    tables = [set(METHODS), set(METHOD_ALIASES), set(AMBIGUOUS)]
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize(
    "name", ["ipo", "aot", "apo_zero", "apo_down", "discopop", "sft", "kto", "orpo", "simpo"]
)
def test_bare_names_that_mean_one_thing_are_ids(name):
    assert resolve(name) is METHODS[name]


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("hinge", ["slic_dpo", "slic", "dpo:hinge", "cpo:hinge"]),
        ("sigmoid", ["dpo", "cpo", "dpo:sigmoid", "cpo:sigmoid"]),
        ("custom_po:hinge", ["slic_dpo", "slic", "reference_free"]),
        ("custom_po:sigmoid", ["dpo", "cpo", "reference_free"]),
        ("mpo", ["soft_dpo", "mixed_mpo", "CustomPOs-for-SLMs", "TRL"]),
        ("rdpo", ["robust_dpo", "length_dpo", "noise", "length"]),
    ],
)
def test_a_name_with_two_meanings_is_refused_with_both(name, choices):
    with pytest.raises(MethodError, match=f"'{name}' means more than one method") as refusal:
        resolve(name)
    assert [choice for choice in choices if choice not in str(refusal.value)] == []
    assert "not available here" not in str(refusal.value)


def test_rpo_ropo_robust_dpo_and_length_dpo_are_four_methods():
    names = ("rpo", "ropo", "robust_dpo", "r-dpo")
    assert [resolve(name).paper.split(" 20")[0] for name in names] == [
        "Pang et al.",
        "Liang et al.",
        "Ray Chowdhury, Kini, Natarajan",
        "Park et al.",
    ]


BROUGHT = [
    ("dpo:bco_pair", "delta_rule", "none", "half_sum"),
    ("bco:bco", "delta_rule", "pooled", "half_sum"),
    ("kto:bco", "delta_rule", "pooled", "half_sum"),
    ("orpo:orpo", "nll_scope", "prompt_and_completion", "completion"),
    ("dpo:kto_pair", "detach_kl", False, True),
    ("custom_po:kto_pair", "detach_kl", False, True),
    ("custom_po:ipo", "length_norm", False, True),
]


@pytest.mark.parametrize(("name", "setting", "there", "here"), BROUGHT)
def test_a_trainers_name_brings_the_setting_without_which_it_is_another_function(name, setting, there, here):
    method = resolve(name)
    assert method.check_params({})[setting] == there
    assert METHODS[method.name].check_params({})[setting] == here
    assert method.check_params({setting: here})[setting] == here


def test_no_other_name_brings_a_setting():
    assert {name: {setting: there} for name, setting, there, _ in BROUGHT} == PRESETS


@pytest.mark.parametrize(
    ("expression", "setting"),
    [
        ("wpo(dpo:bco_pair)", "delta_rule"),
        ("tr_dpo(dpo:bco_pair)", "delta_rule"),
        ("mix(dpo:sigmoid, dpo:bco_pair)", "bco_pair_delta_rule"),
    ],
)
def test_it_brings_it_into_expressions_too(expression, setting):
    assert resolve(expression).check_params({})[setting] == "none"


def test_a_preset_that_a_method_does_not_allow_is_refused(monkeypatch):
    monkeypatch.setattr("po.methods.PRESETS", {"dpo:bco_pair": {"delta_rule": "running"}})
    with pytest.raises(TypeError, match="allows delta_rule = .*'running' was given"):
        resolve("dpo:bco_pair")


TRL_OPTIONS = [
    ("dpo:ipo", "beta", "tau"),
    ("dpo:robust", "label_smoothing", "eps"),
    ("dpo:exo_pair", "label_smoothing", "eps"),
    ("dpo:aot", "label_smoothing", "eps"),
    ("dpo:aot_unpaired", "label_smoothing", "eps"),
    ("cdpo", "label_smoothing", "eps"),
    ("dpo:discopop", "discopop_tau", "temperature"),
    ("ld_alpha", "ld_alpha", "alpha"),
    ("f_dpo", "f_alpha_divergence_coef", "alpha"),
    ("rpo", "rpo_alpha", "nll_weight"),
    ("sync_ref_model", "ref_model_sync_steps", "sync_steps"),
    ("sync_ref_model", "ref_model_mixup_alpha", "sync_mix"),
    ("cpo:sigmoid", "cpo_alpha", "nll_weight"),
    ("cpo:sigmoid", "label_smoothing", "eps"),
    ("cpo:ipo", "beta", "tau"),
    ("cpo:simpo", "simpo_gamma", "gamma"),
    ("cpo:alphapo", "simpo_gamma", "gamma"),
    ("orpo:orpo", "beta", "odds_weight"),
    ("simpo:sigmoid", "sft_weight", "nll_weight"),
]
CUSTOM_PO_OPTIONS = [
    ("cpo", "lambda_sft", "nll_weight"),
    ("slic", "lambda_sft", "nll_weight"),
    ("custom_po:fpo", "gamma", "focus"),
    ("custom_po:fcpo", "gamma", "focus"),
    ("custom_po:ropo", "alpha_ropo", "alpha"),
    ("custom_po:simpo", "label_smoothing", "eps"),
]


@pytest.mark.parametrize(("name", "option", "canonical"), TRL_OPTIONS + CUSTOM_PO_OPTIONS)
def test_an_option_of_another_trainer_is_read_under_its_name_there(name, option, canonical):
    method = resolve(name)
    value = method.check_params({})[canonical]
    assert method.canonical({option: value})[0] == {canonical: value}
    assert method.check_params({option: value}) == method.check_params({})


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("dpo:sigmoid", "beta"),
        ("dpo:hinge", "beta"),
        ("kto:kto", "desirable_weight"),
        ("kto:kto", "undesirable_weight"),
        ("cpo:alphapo", "alpha"),
        ("custom_po:dpo-gamma", "gamma"),
        ("dpo", "reference_free"),
        ("dpo", "margin"),
    ],
)
def test_other_options_have_the_same_name_here(name, option):
    assert option in resolve(name).rules


def test_average_log_prob_chooses_the_averaged_ipo():
    assert resolve("custom_po:ipo").check_params({"average_log_prob": True})["length_norm"] is True


def test_every_parameter_alias_leads_to_a_parameter():
    known = {name for method in METHODS.values() for name in method.rules}
    assert set(PARAMETER_ALIASES.values()) <= known
    for method in METHODS.values():
        assert set(method.parameter_aliases.values()) <= set(method.rules), method.name
        assert not set(method.parameter_aliases) & set(method.rules), method.name


@pytest.mark.parametrize(
    ("method", "option", "advice"),
    [
        ("dpo", "label_smoothing", "cdpo"),
        ("slic_dpo", "label_smoothing", "cdpo"),
        ("dpo", "ld_alpha", "ld_dpo"),
        ("dpo", "f_divergence_type", "f_dpo"),
        ("ipo", "use_weighting", r"wpo\(METHOD\)"),
        ("ipo", "ref_model_sync_steps", r"tr_dpo\(METHOD\)"),
        ("dpo", "loss_weights", r"mix\(METHOD, METHOD\)"),
        ("dpo", "rpo_alpha", "is rpo"),
        ("cpo", "sft_type", "nll_reduction"),
        ("mallows_dpo", "phi_star", "-2 phi_star"),
        ("soft_dpo", "use_reward_logit", "link"),
    ],
)
def test_an_option_that_is_a_method_here_is_refused_with_its_name(method, option, advice):
    with pytest.raises(ParameterError, match=f"^{method} has no parameter '{option}'.*{advice}"):
        METHODS[method].check_params({option: 0.1})


def test_advice_names_methods_that_exist():
    named = {"cdpo", "f_dpo", "ld_dpo", "discopop", "rpo", "soft_dpo", "ln_dpo", "ipo", "simpo", "orpo"}
    assert named <= set(METHODS)
    text = " ".join(ADVICE.values())
    assert [name for name in named if name not in text] == []
