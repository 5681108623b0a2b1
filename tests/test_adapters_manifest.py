"""Adapters and quantization in a manifest: words, defaults, faults, what they do to hashes."""

import typing

import pytest
from manifests import changed, faults, loaded, only_fault

from experiments.schema import Adapter, Model
from experiments.unit_identity import Contents
from po.models.adapter_settings import INITIAL, REFERENCES, AdapterSettings
from po.models.quantize import QUANTIZATIONS

HUB = {"id": "org/name", "revision": "a" * 40}


def fault(folder, **model):
    return only_fault(folder, models__tiny=HUB | model)


def model_of(**words):
    return Model.model_validate(HUB | words)


def test_the_words_and_defaults_are_those_of_training():
    default = Adapter().model_dump()
    assert AdapterSettings.of(default) == AdapterSettings(modules_to_save=[])
    fields = Adapter.model_fields
    assert typing.get_args(fields["init"].annotation) == tuple(INITIAL)
    assert typing.get_args(fields["reference"].annotation) == REFERENCES
    words, _ = typing.get_args(Model.model_fields["quantization"].annotation)
    assert typing.get_args(words) == QUANTIZATIONS


def test_a_model_without_them_is_hashed_as_before_there_were_any():
    content = Contents().model(model_of())
    assert set(content) == {
        "id", "revision", "from_scratch", "dtype", "attention", "chat_template", "trust_remote_code"
    }  # fmt: skip
    assert Contents().model(model_of(adapter={}))["adapter"]["r"] == 16
    assert Contents().model(model_of(adapter={}, quantization="4bit"))["quantization"] == "4bit"


def digests(folder, **words):
    study = loaded(folder, models__tiny=HUB | words)
    return {cell.name: study.study.cell(cell).digest for cell in study.grid.cells}


def test_every_word_of_an_adapter_makes_other_cells(tmp_path):
    changes = [
        {},
        {"r": 8},
        {"alpha": 16},
        {"dora": True},
        {"target_modules": ["q_proj"]},
        {"reference": "copy"},
    ]
    found = [digests(tmp_path / str(i), adapter=words) for i, words in enumerate(changes)]
    found += [digests(tmp_path / "none"), digests(tmp_path / "4", adapter={}, quantization="4bit")]
    for name in found[0]:
        assert len({each[name] for each in found}) == len(found)
    assert digests(tmp_path / "same", adapter={"alpha": 32.0, "r": 16}) == found[0]


@pytest.mark.parametrize(("kind", "reference"), [(None, "off"), ("4bit", "copy"), ("8bit", "copy")])
def test_quantized_weights_are_never_rounded_twice_unless_that_is_asked_for(kind, reference):
    assert model_of(adapter={}, quantization=kind).adapter.reference == reference
    assert model_of(adapter={"reference": "off"}, quantization=kind).adapter.reference == "off"


def test_faults_say_what_may_be_written(tmp_path):
    assert "unknown key 'rnak'" in fault(tmp_path, adapter={"rnak": 4})
    targets = fault(tmp_path, adapter={"target_modules": "all_linear"})
    assert targets.startswith("models.tiny.adapter.target_modules: 'all_linear': write all-linear, or a list")
    assert "'off', 'copy' or 'merged'" in fault(tmp_path, adapter={"reference": "of"})
    assert "'4bit' or '8bit'" in fault(tmp_path, adapter={}, quantization="4-bit")
    both = changed(models__tiny=HUB | {"adapter": {"r": 0, "dropout": 1.0}})
    places = {each.split(":")[0] for each in faults(tmp_path, both)}
    assert places == {"models.tiny.adapter.r", "models.tiny.adapter.dropout"}


def test_what_cannot_go_together_is_refused(tmp_path):
    assert "give the model an adapter" in fault(tmp_path, quantization="4bit")
    assert "dora does not go with weights in 8 bits" in fault(
        tmp_path, quantization="8bit", adapter={"dora": True}
    )
    scratch = {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2}, "adapter": {}}
    assert "random weights must be trained themselves" in only_fault(tmp_path, models__tiny=scratch)
