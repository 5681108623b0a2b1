"""docs/trl.md says what is so: names, options and defaults are read off TRL and compared."""

import dataclasses
import re
from pathlib import Path

import pytest
from transformers import TrainingArguments
from trl_side import loss_types, trl

from po.methods import METHODS, resolve
from po.methods.hyperparameters import shown

cpo = pytest.importorskip("trl.experimental.cpo")
orpo = pytest.importorskip("trl.experimental.orpo")

PAGE = (Path(__file__).parents[1] / "docs" / "trl.md").read_text()
CONFIGS = {"dpo": trl.DPOConfig, "kto": trl.KTOConfig, "cpo": cpo.CPOConfig, "orpo": orpo.ORPOConfig}
TRANSFORMERS = {entry.name for entry in dataclasses.fields(TrainingArguments)}


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def own_defaults(config):
    """Options that TRL adds to those of transformers, with their defaults."""
    fields = [entry for entry in dataclasses.fields(config) if entry.name not in TRANSFORMERS]
    return {entry.name: entry.default for entry in fields}


LOSSES = dict(re.findall(r"^\| `([\w:]+)` \| `(\w+)` \|", section("Losses"), flags=re.MULTILINE))


def test_the_page_has_every_loss_type_of_trls_trainers():
    types = {
        "dpo": loss_types(trl.DPOTrainer),
        "kto": loss_types(trl.KTOTrainer),
        "cpo": loss_types(cpo.CPOTrainer, cpo.CPOConfig),
        "orpo": {"orpo"},
    }
    assert len(types["dpo"]) >= 15
    expected = {f"{trainer}:{name}" for trainer, names in types.items() for name in names}
    assert expected <= set(LOSSES)


@pytest.mark.parametrize(("name", "method"), LOSSES.items())
def test_a_name_on_the_page_resolves_to_the_method_beside_it(name, method):
    assert resolve(name).name == method


@pytest.mark.parametrize(("option", "name"), re.findall(r"`(\w+)` -> `(\w+)`", section("Losses")))
def test_an_arrow_on_the_page_is_a_name_that_is_understood(option, name):
    rows = [line for line in section("Losses").splitlines() if f"`{option}` -> `{name}`" in line]
    for row in rows:
        method = resolve(re.match(r"\| `([\w:]+)`", row).group(1))
        assert method.canonical({option: 0.25})[0] == {name: 0.25}


def test_what_a_name_sets_stands_beside_it():
    stated = re.findall(r"^\| `([\w:]+)` \|.*the name sets `(\w+): (\w+)`", section("Losses"), re.MULTILINE)
    assert {(name, *item) for name in LOSSES for item in resolve(name).presets.items()} == set(stated)


@pytest.mark.parametrize("trainer", CONFIGS)
def test_every_option_that_trl_adds_is_on_the_page(trainer):
    options = own_defaults(CONFIGS[trainer])
    assert "beta" in options
    assert [name for name in options if f"`{name}`" not in PAGE] == []


def test_the_defaults_that_differ_are_those_of_the_table():
    pattern = r"^\| `([\w:]+)` \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|"
    table = re.findall(pattern, section("Defaults that differ"), flags=re.MULTILINE)
    assert sorted(table) == sorted(differing_defaults())


def differing_defaults():
    """(name of the loss, hyperparameter, TRL's default, ours) where both have one and it is another."""
    for name, method in LOSSES.items():
        trainer = name.partition(":")[0]
        for option, theirs in own_defaults(CONFIGS[trainer]).items() if trainer in CONFIGS else ():
            if not isinstance(theirs, float) or (option == "alpha" and method != "alphapo"):
                continue  # the letter alpha: see the page
            (canonical,) = resolve(name).canonical({option: theirs})[0]
            values = METHODS[method].check_params({})
            if canonical in values and values[canonical] != theirs:
                yield name, canonical, shown(theirs), shown(values[canonical])


def test_methods_on_the_page_exist():
    for expression in re.findall(r"`((?:mix|wpo|tr_dpo)\([\w, ]+\))`", PAGE):
        if "METHOD" not in expression:
            assert resolve(expression).name == expression
    options = section("Options that are methods")
    for name in ("rpo", "mixed_mpo", "ld_dpo", "f_dpo", "alphapo", "cdpo"):
        assert f"`{name}`" in options
        assert name in METHODS
    for value in ("reverse_kl", "forward_kl", "js", "alpha"):
        assert f"`{value}`" in options
        assert METHODS["f_dpo"].check_params({"divergence": value})["divergence"] == value
