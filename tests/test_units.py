"""What a change of the manifest makes anew, and what it leaves alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from manifests import REMOVED, changed, loaded, write

from experiments.loading import Loaded, load
from po.methods import METHODS

Documents = dict[str, Mapping[str, Any]]


def documents(plan: Loaded) -> Documents:
    """``method.axes.seed`` -> document of every cell."""
    return {
        cell.name.removeprefix("tiny.numbers."): plan.study.cell(cell).document for cell in plan.grid.cells
    }


def cells(folder: Path, **changes: Any) -> Documents:
    return documents(loaded(folder, **changes))


def changed_hashes(before: Documents, after: Documents) -> dict[str, set[str]]:
    """Cell -> names of its hashes that differ, of the cells that both have."""
    return {
        name: {
            kind for kind, digest in after[name]["hashes"].items() if digest != before[name]["hashes"][kind]
        }
        for name in before
        if name in after
    }


def test_another_metric_changes_the_score_hash_only(tmp_path: Path) -> None:
    found = changed_hashes(cells(tmp_path), cells(tmp_path, tasks__numbers__metrics=["chrf", "bleu"]))
    assert list(found.values()) == [{"score"}] * 4


def test_the_order_of_metrics_changes_nothing(tmp_path: Path) -> None:
    before = cells(tmp_path, tasks__numbers__metrics=["chrf", "bleu"])
    found = changed_hashes(before, cells(tmp_path, tasks__numbers__metrics=["bleu", "chrf"]))
    assert list(found.values()) == [set()] * 4


def with_tests(folder: Path, *names: str, **changes: Any) -> Documents:
    sources = {}
    for name in ("train", *names):
        path = folder / f"{name}.jsonl"
        path.write_text(json.dumps({"source": f"text of {name}", "reference": "Text"}) + "\n")
        sources[name] = {"dataset": str(path)}
    parts = {
        "tasks__numbers__data": REMOVED,
        "tasks__numbers__train": sources.pop("train"),
        "tasks__numbers__tests": sources,
    }
    return cells(folder, **parts, **changes)


def test_another_test_set_leaves_training_and_the_other_test_set_alone(tmp_path: Path) -> None:
    before, after = with_tests(tmp_path, "a"), with_tests(tmp_path, "a", "b")
    assert list(changed_hashes(before, after).values()) == [{"generate", "score"}] * 4
    for name in before:
        assert after[name]["tests"]["a"] == before[name]["tests"]["a"]
        assert after[name]["tests"]["b"]["folder"] != after[name]["tests"]["a"]["folder"]


def test_selecting_on_the_development_split_trains_nothing_anew(tmp_path: Path) -> None:
    found = changed_hashes(cells(tmp_path), cells(tmp_path, report={"select": {"metric": "chrf"}}))
    assert list(found.values()) == [{"generate", "score"}] * 4
    path = tmp_path / "dev.jsonl"
    path.write_text('{"source": "d", "reference": "D"}\n')
    before = with_tests(tmp_path, "a")
    after = with_tests(
        tmp_path, "a", tasks__numbers__dev={"dataset": str(path)}, report={"select": {"metric": "chrf"}}
    )
    assert list(changed_hashes(before, after).values()) == [{"generate", "score"}] * 4
    assert set(after["sft.s1"]["tests"]) == {"a", "dev"}


def test_another_method_changes_no_other_cell(tmp_path: Path) -> None:
    before, after = cells(tmp_path), cells(tmp_path, methods__simpo={"from": "sft"})
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"simpo.s1", "simpo.s2"}


def test_another_seed_changes_no_other_cell(tmp_path: Path) -> None:
    before, after = cells(tmp_path), cells(tmp_path, seeds=[1, 2, 3])
    assert {name: after[name] for name in before} == before


def test_another_beta_of_one_method_changes_its_cells_only(tmp_path: Path) -> None:
    methods = {"sft": {}, "dpo": {"from": "sft", "params": {"beta": 0.1}}, "cpo": {"from": "sft"}}
    before = cells(tmp_path, methods=methods)
    methods["dpo"]["params"]["beta"] = 0.2
    found = changed_hashes(before, cells(tmp_path, methods=methods))
    everything = {"train", "generate", "score"}
    assert found == {name: everything if name.startswith("dpo") else set() for name in found}


def test_another_value_of_the_parent_changes_its_children_too(tmp_path: Path) -> None:
    found = changed_hashes(cells(tmp_path), cells(tmp_path, methods__sft={"params": {"learning_rate": 2e-3}}))
    assert list(found.values()) == [{"train", "generate", "score"}] * 4


def test_a_default_that_is_written_out_changes_nothing(tmp_path: Path) -> None:
    spelled = {
        "from": "sft",
        "params": {"beta": 0.1, "margin": 0, "reference_free": False, "weight_decay": 0},
    }
    assert cells(tmp_path, methods__dpo=spelled) == cells(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"global_batch_size": 8, "per_device_batch_size": 2}},
        {
            "training": {
                "global_batch_size": 8,
                "per_device_batch_size": 4,
                "logging_steps": 1,
                "save_steps": 7,
                "retain": "all",
            }
        },
        {"training": {"global_batch_size": 8, "per_device_batch_size": 4, "gradient_checkpointing": True}},
        {"resources": {"default": {"cpus": 4, "gpus": 1}}},
        {"tasks__numbers__generation": {"max_new_tokens": 32, "batch_size": 3}},
        {
            "tasks__numbers__generation": {
                "max_new_tokens": 32,
                "batch_size": 8,
                "temperature": 0.5,
                "seed": 4,
            }
        },
        {"report": {"baseline": "dpo"}},
        {"exclude": [{"when": {"seed": 2, "method": "dpo"}, "reason": "x"}]},
        {"name": "another"},
    ],
)
def test_how_a_cell_is_computed_is_not_part_of_what_it_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert set(map(frozenset, changed_hashes(cells(tmp_path), cells(tmp_path, **changes)).values())) == {
        frozenset()
    }


def test_the_batch_size_of_sampling_is_part_of_what_comes_out(tmp_path: Path) -> None:
    sampling = {"max_new_tokens": 32, "do_sample": True, "batch_size": 8}
    before = cells(tmp_path, tasks__numbers__generation=sampling)
    found = changed_hashes(before, cells(tmp_path, tasks__numbers__generation=sampling | {"batch_size": 4}))
    assert list(found.values()) == [{"generate", "score"}] * 4
    pairs = changed_hashes(
        cells(tmp_path), cells(tmp_path, tasks__numbers__pairs={"samples": 3, "batch_size": 16})
    )
    assert pairs == {
        "sft.s1": set(),
        "sft.s2": set(),
        "dpo.s1": {"train", "generate", "score"},
        "dpo.s2": {"train", "generate", "score"},
    }


def test_a_batch_coupled_loss_depends_on_the_split_of_the_batch(tmp_path: Path) -> None:
    from dataclasses import replace

    from experiments.schema import Training
    from experiments.unit_identity import training_identity

    for coupled in (replace(METHODS["dpo"], batch_coupled=True), METHODS["kto"], METHODS["sampo"]):
        assert training_identity(Training(), coupled)["per_device_batch_size"] == 8
    assert "per_device_batch_size" not in training_identity(Training(), METHODS["dpo"])


def make(plan: Loaded) -> None:
    for job in plan.graph.jobs.values():
        job.write_command_files()


def test_widening_a_grid_keeps_the_folders_that_are_there(tmp_path: Path) -> None:
    before = loaded(tmp_path, seeds=[1])
    make(before)
    after = loaded(
        tmp_path, methods__dpo={"from": "sft", "grid": {"beta": [0.1, 0.2], "margin": [0, 1]}}, seeds=[1]
    )
    old = before.study.cell(before.grid.cells[1])
    found = {cell.name: after.study.cell(cell).folder for cell in after.grid.cells}
    assert old.folder.name == f"tiny.numbers.dpo.s1--{old.digest[:10]}"
    assert found["tiny.numbers.dpo.beta0.1-margin0.s1"] == old.folder
    assert len(set(found.values())) == 5
    assert [path for path in found.values() if path.exists()] == [found["tiny.numbers.sft.s1"], old.folder]


def test_equal_tokenizers_share_their_data_before_and_after_it_is_made(tmp_path: Path) -> None:
    model = changed()["models"]["tiny"]
    models = {"small": model, "large": {"from_scratch": model["from_scratch"] | {"layers": 4}}}
    plan = loaded(tmp_path, models=models, seeds=[1])
    folders = {plan.study.corpus(name, "numbers").folder for name in models}
    assert len(folders) == 1
    make(plan)
    again = loaded(tmp_path, models=models, seeds=[1])
    assert {again.study.corpus(name, "numbers").folder for name in models} == folders


def test_cells_of_another_precision_have_another_reference(tmp_path: Path) -> None:
    methods = {"sft": {}, "dpo": {"from": "sft"}, "ipo": {"from": "sft"}}
    override = {"when": {"method": "ipo"}, "set": {"training.precision": "bf16"}}
    same, other = cells(tmp_path, methods=methods), cells(tmp_path, methods=methods, overrides=[override])
    assert same["dpo.s1"]["reference"] == same["ipo.s1"]["reference"]
    assert other["dpo.s1"]["reference"] == same["dpo.s1"]["reference"] != other["ipo.s1"]["reference"]


def test_a_document_spells_out_every_value_that_is_used(tmp_path: Path) -> None:
    document = cells(tmp_path)["dpo.s1"]
    assert document["train"]["params"] == METHODS["dpo"].check_params({"beta": 0.1})
    assert document["train"]["training"]["adam_epsilon"] == 1e-8
    assert document["generation"]["top_p"] == 1.0
    assert document["parent"].startswith("cells/tiny.numbers.sft.s1--")
    assert document["train"]["data"] == f"{document['pairs']}/pairs.jsonl"
    assert json.loads(json.dumps(document)) == document


def test_pairs_of_the_data_set_itself_are_used_as_they_are(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"source": "a", "reference": "b", "good": "c", "bad": "d"}\n')
    columns = {"chosen": "good", "rejected": "bad"}
    parts = {
        "tasks__numbers__data": REMOVED,
        "tasks__numbers__pairs": REMOVED,
        "tasks__numbers__train": {"dataset": str(rows), "columns": columns},
        "tasks__numbers__tests": {"a": {"dataset": str(rows)}},
    }
    plan = loaded(tmp_path, **parts)
    document = documents(plan)["dpo.s1"]
    assert (document["pairs"], document["pairs_scorer"]) == (None, None)
    assert document["train"]["data"] == f"{document['corpus']}/train.jsonl"
    assert not [job for job in plan.graph.jobs.values() if job.stage == "pairs"]


def test_smoke_is_the_same_study_in_small(tmp_path: Path) -> None:
    entry = {"from": "sft", "grid": {"beta": [0.1, 0.2]}, "list": [{"beta": 0.3}]}
    path = write(tmp_path, changed(methods__dpo=entry))
    smoke = load(path, tmp_path / "runs", smoke=True)
    assert smoke.root == tmp_path / "runs/small-smoke"
    assert [cell.name for cell in smoke.grid.cells] == ["tiny.numbers.sft.s1", "tiny.numbers.dpo.s1"]
    assert {cell.training.max_steps for cell in smoke.grid.cells} == {2}
    data = smoke.manifest.tasks["numbers"].data
    assert data is not None
    assert (data.sft, data.train, data.test) == (40, 20, 4)  # never more than the study has
