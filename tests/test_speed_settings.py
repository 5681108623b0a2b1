"""Settings of speed on their way from the manifest to the trainer; micro-batches that memory decides."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from manifests import grid, loaded, only_fault
from tiny_training import TRAINING, change_training, make_experiment

from experiments.schema import Training
from experiments.schema_speed import Speed
from experiments.unit_identity import training_identity
from po.faults import InputFault
from po.methods import METHODS
from po.settings import SpeedSettings, TrainingSettings, read_settings
from po.training.arguments import trainer_arguments

PLAIN = {"sharing": "off", "head": "recompute", "token_budget": 512, "compile": False, "liger": False}


def cells(folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """cell.json of every cell, by the cell's name."""
    found = loaded(folder, **changes)
    return {cell.name: dict(found.study.cell(cell).document) for cell in found.grid.cells}


def test_the_settings_of_speed_stand_in_cell_json_with_their_defaults(tmp_path: Path) -> None:
    defaults = dataclasses.asdict(SpeedSettings())
    assert Speed().model_dump() == defaults == TRAINING["speed"]
    found = cells(tmp_path / "a", training__speed=PLAIN)
    for name, document in cells(tmp_path / "b").items():
        assert document["train"]["training"]["speed"] == defaults
        assert found[name]["train"]["training"]["speed"] == PLAIN
        assert found[name]["hashes"] == document["hashes"]


def test_speed_and_an_automatic_micro_batch_are_no_part_of_what_a_cell_is() -> None:
    plain = Training.model_validate({"speed": PLAIN, "per_device_batch_size": "auto"})
    for method in ("dpo", "sft", "simpo"):
        assert training_identity(plain, METHODS[method]) == training_identity(Training(), METHODS[method])
    assert "speed" not in training_identity(Training(), METHODS["kto"])


def test_a_method_and_an_override_change_what_they_name_and_no_more(tmp_path: Path) -> None:
    methods = {"sft": {}, "dpo": {"from": "sft", "params": {"speed": {"head": "recompute"}}}}
    override = {"when": {"method": "dpo"}, "set": {"training.speed.token_budget": 256}}
    training = {"global_batch_size": 8, "per_device_batch_size": 4, "speed": {"sharing": "off"}}
    found = grid(tmp_path, methods=methods, overrides=[override], seeds=[1], training=training)
    sft, dpo = (cell.training.speed for cell in found.cells)
    assert sft == Speed(sharing="off")
    assert dpo == Speed(sharing="off", head="recompute", token_budget=256)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"training__speed": {"sharng": "off"}}, "training.speed.sharng: unknown key 'sharng'; did you mean"),
        ({"training__speed": {"token_budget": 0}}, "training.speed.token_budget: 0: Input should be greater"),
        (
            {"overrides": [{"when": {}, "set": {"training.speed.head": "fast"}}]},
            "overrides[0].set.training.speed.head: 'fast': Input should be 'fused' or 'recompute'",
        ),
        (
            {"overrides": [{"when": {}, "set": {"training.speed.sharng": "off"}}]},
            "overrides[0].set.training.speed.sharng: 'training.speed.sharng' cannot be set here; "
            "did you mean 'training.speed.sharing'?",
        ),
        (
            {"training__per_device_batch_size": "all"},
            "training.per_device_batch_size: 'all': write a whole number of at least 1, or auto",
        ),
        (
            {"training__per_device_batch_size": True},
            "training.per_device_batch_size: True: write a whole number of at least 1, or auto",
        ),
        (
            {"resources": {"default": {"gpus": 3}}, "training__per_device_batch_size": "auto"},
            "resources: global_batch_size 8 is not divisible by 3 GPUs",
        ),
    ],
)
def test_a_bad_setting_is_a_fault_with_its_place(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    assert only_fault(tmp_path, **changes).startswith(fault)


def test_auto_is_refused_for_a_method_that_compares_the_examples_of_a_micro_batch(tmp_path: Path) -> None:
    methods = {"sft": {}, "dpo": {"from": "sft"}, "kto": {"from": "sft"}}
    training = {"global_batch_size": 8, "per_device_batch_size": "auto"}
    fault = only_fault(tmp_path, methods=methods, training=training)
    assert fault == (
        "methods.kto: per_device_batch_size: a loss of kto depends on its micro-batch, so that its size "
        "is a hyperparameter; give a number in place of auto"
    )
    methods["kto"] = {"from": "sft", "params": {"per_device_batch_size": 4}}
    found = grid(tmp_path, methods=methods, training=training, seeds=[1])
    sizes = {cell.method: cell.training.per_device_batch_size for cell in found.cells}
    assert sizes == {"sft": "auto", "dpo": "auto", "kto": 4}


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**TRAINING, "speed": SpeedSettings(), **changes})


@pytest.mark.parametrize(("processes", "micro"), [(1, 8), (2, 4), (8, 1)])
def test_an_automatic_micro_batch_is_what_a_process_has_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, micro: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    found = trainer_arguments(settings(per_device_batch_size="auto"), 1, tmp_path, 100)
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (micro, 1)


def test_a_global_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputFault, match="global_batch_size 8 is not divisible by 3 processes$"):
        trainer_arguments(settings(per_device_batch_size="auto"), 1, tmp_path, 100)


def test_training_reads_them_and_every_one_must_be_there(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path)
    change_training(folder, speed=PLAIN, per_device_batch_size="auto")
    recipe = read_settings(folder).recipe
    assert recipe is not None
    assert recipe.training.speed == SpeedSettings(**PLAIN)
    assert recipe.training.per_device_batch_size == "auto"
    change_training(folder, speed={"sharing": "off"})
    with pytest.raises(
        InputFault, match="train.training.speed has unknown or missing keys: compile, head, li"
    ):
        read_settings(folder)


def test_a_coupled_method_with_auto_is_refused_in_training_too(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path)
    cell = json.loads((folder / "cell.json").read_text())
    cell["train"] |= {"method": "aot", "params": METHODS["aot"].check_params({})}
    cell["reference"] = "reference/x"
    (folder / "cell.json").write_text(json.dumps(cell))
    change_training(folder, per_device_batch_size="auto")
    with pytest.raises(
        InputFault, match="aot: losses depend on the micro-batch; per_device_batch_size must be"
    ):
        read_settings(folder)
