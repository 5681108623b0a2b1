"""Settings of the library: names of TRL's users, what is refused and how."""

import json
import keyword
import pickle
import subprocess
import sys

import pytest
from transformers import HfArgumentParser, TrainingArguments

from po import METHODS, PreferenceConfig
from po.faults import InputFault
from po.library.trl_options import MOVED
from po.methods.aliases import PARAMETER_ALIASES
from po.methods.hyperparameters import MethodError, ParameterError, Range

CPU = {"report_to": "none", "use_cpu": True}


def config(**given):
    return PreferenceConfig("out", **CPU, **given)


def any_value(rule):
    """A value that a rule allows, other than the default where there is a choice."""
    if isinstance(rule, Range):
        high = rule.high if rule.high != float("inf") else rule.low + 3
        return (rule.low + high) / 2
    return rule.values[-1]


def every_name():
    for method in METHODS.values():
        aliases = {**PARAMETER_ALIASES, **method.parameter_aliases}
        for name, rule in method.rules.items():
            others = [
                alias for alias, target in aliases.items() if target == name and alias not in method.rules
            ]
            for given in (name, *others):
                yield pytest.param(method.name, given, name, rule, id=f"{method.name}-{given}")


@pytest.mark.parametrize(("method", "given", "canonical", "rule"), list(every_name()))
def test_each_hyperparameter_of_each_method_is_a_keyword(method, given, canonical, rule):
    value = any_value(rule)
    more = {"nll_weight": 1.0} if method == "cpo_simpo" and canonical != "nll_weight" else {}
    assert config(method=method, **{given: value}, **more).resolved_params[canonical] == value


def test_no_hyperparameter_has_the_name_of_a_training_argument():
    names = (
        {name for method in METHODS.values() for name in method.rules} | set(PARAMETER_ALIASES) | set(MOVED)
    )
    assert names.isdisjoint(TrainingArguments.__dataclass_fields__)


def test_a_script_of_simpo_is_understood_word_for_word():
    found = config(method="cpo:simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0.5, label_smoothing=0.1)
    assert found.resolved_method.name == "cpo_simpo"
    expected = {"beta": 2.0, "gamma": 1.0, "nll_weight": 0.5, "eps": 0.1, "nll_reduction": "token_batch"}
    assert found.resolved_params == expected


def test_hyperparameters_of_an_expression_are_keywords():
    found = config(method="mix(ipo, sft)", ipo_tau=0.4, sft_weight=0.5)
    assert found.resolved_params["ipo_tau"] == 0.4
    assert found.resolved_params["sft_weight"] == 0.5


def test_hyperparameters_may_come_as_a_mapping():
    assert config(params={"beta": 0.3}).resolved_params["beta"] == 0.3
    with pytest.raises(InputFault, match="beta is given both in params and as a keyword"):
        config(params={"beta": 0.3}, beta=0.3)


def test_a_hyperparameter_that_the_method_does_not_have_is_refused_with_those_that_do():
    with pytest.raises(ParameterError, match=r"dpo has no parameter 'simpo_gamma'.*: simpo, simpo_hinge"):
        config(method="dpo", simpo_gamma=0.5)
    with pytest.raises(ParameterError, match=r"dpo has no parameter 'ref_model_mixup_alpha'.*tr_dpo"):
        config(method="dpo", ref_model_mixup_alpha=0.5)
    with pytest.raises(ParameterError, match=r"soft_dpo has no parameter 'use_reward_logit'.*It is link"):
        config(method="soft_dpo", use_reward_logit=True)
    with pytest.raises(ParameterError, match=r"^dpo allows beta > 0 \(reward per nat\); -1 was given\.$"):
        config(method="dpo", beta=-1)


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(MethodError, match="did you mean 'dpop'"):
        config(method="dpopp")


@pytest.mark.parametrize(
    ("option", "value", "place"),
    [
        ("loss_type", "hinge", "method='dpo:hinge' or 'cpo:hinge'"),
        ("loss_type", ["simpo"], "method='cpo:simpo'"),
        ("loss_type", ["sigmoid", "sft"], "mix"),
        ("sync_ref_model", True, "tr_dpo"),
        ("truncation_mode", "keep_end", "truncation"),
        ("use_weighting", True, "wpo"),
        ("padding_free", True, "padding is masked"),
    ],
)
def test_options_of_trl_that_are_elsewhere_say_where(option, value, place):
    with pytest.raises(InputFault, match=place) as caught:
        config(**{option: value})
    assert "option of TRL's" in str(caught.value) or "a list as loss_type" in str(caught.value)


def test_options_of_trl_that_are_off_are_no_wish():
    found = config(sync_ref_model=False, padding_free=False, ld_alpha=None, loss_weights=None)
    assert found.resolved_params == METHODS["dpo"].check_params({})


def test_a_misspelled_option_is_refused_with_the_nearest():
    with pytest.raises(InputFault, match="no option 'max_prompt_len'; did you mean 'max_prompt_length'"):
        config(max_prompt_len=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "tr_dpo", "precompute_ref_log_probs": True}, "tr_dpo asks its reference in every step"),
        ({"fp16": True, "precompute_ref_log_probs": True}, "under fp16 policy and reference would not agree"),
        ({"over_long": "cut"}, "over_long is 'cut'"),
        ({"truncation": "keep_ends"}, "did you mean 'keep_end'"),
        ({"max_prompt_length": 0}, "max_prompt_length is 0"),
        ({"max_length": 1}, "max_length is 1; it is at least 2"),
        ({"use_liger_kernel": True}, "use_liger_kernel"),
        ({"params": "beta=0.1"}, "on a command line it is JSON"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, message):
    with pytest.raises(InputFault, match=message):
        config(**given)


def test_defaults_are_trls_where_it_has_them():
    trl = pytest.importorskip("trl")
    theirs = trl.DPOConfig("out", **CPU, bf16=False)
    ours = config()
    for name in ("learning_rate", "logging_steps", "gradient_checkpointing", "max_length", "disable_dropout"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.resolved_params["beta"] == theirs.beta
    assert not ours.remove_unused_columns


def test_all_that_was_used_is_in_the_dictionary_and_no_more():
    found = config(method="simpo", simpo_gamma=1.0).to_dict()
    assert {name: found[name] for name in ("method", "beta", "gamma", "eps", "nll_weight")} == {
        "method": "simpo",
        "beta": 2.0,
        "gamma": 1.0,
        "eps": 0.0,
        "nll_weight": 0.0,
    }
    assert "simpo_gamma" not in found and "tau" not in found
    assert json.loads(json.dumps(found))["max_length"] == 1024


def test_the_dictionary_makes_the_same_settings():
    for given in ({"method": "simpo", "simpo_gamma": 1.0}, {"method": "mix(ipo, sft)", "ipo_tau": 0.4}):
        first = config(**given)
        again = PreferenceConfig(**first.to_dict())
        assert again.resolved_params == first.resolved_params
        assert pickle.loads(pickle.dumps(first)).resolved_params == first.resolved_params


def test_a_value_that_is_set_later_counts():
    found = config(beta=0.1)
    found.beta = 0.7
    assert found.resolved_params["beta"] == 0.7


def test_a_command_line_gives_the_same_settings():
    line = ["--output_dir", "out", "--use_cpu", "--report_to", "none", "--method", "ipo", "--beta", "0.3"]
    (found,) = HfArgumentParser(PreferenceConfig).parse_args_into_dataclasses(
        [*line, "--length_norm", "false"]
    )
    assert found.resolved_params == {"tau": 0.3, "length_norm": False}
    line = ["--output_dir", "out", "--use_cpu", "--method", "mix(ipo, sft)", "--params", '{"ipo_tau": 0.3}']
    (found,) = HfArgumentParser(PreferenceConfig).parse_args_into_dataclasses(line)
    assert found.resolved_params["ipo_tau"] == 0.3


def test_names_that_are_words_of_python_go_into_params():
    assert keyword.iskeyword("lambda")
    assert config(method="dpop", params={"lambda": 5.0}).resolved_params["lam"] == 5.0
    assert config(method="dpop", **{"lambda": 5.0}).resolved_params["lam"] == 5.0


def test_the_package_does_not_load_transformers_until_the_trainer_is_wanted():
    code = (
        "import sys, po\n"
        "from po import METHODS\n"
        "assert 'dpo' in METHODS and 'transformers' not in sys.modules, 'loaded'\n"
        "assert {'PreferenceConfig', 'PreferenceTrainer'} <= set(dir(po))\n"
        "try:\n    po.Trainer\nexcept AttributeError as error:\n    print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == (
        "module 'po' has no attribute 'Trainer'; there are METHODS, PreferenceConfig, PreferenceTrainer"
    )
