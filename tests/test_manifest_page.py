"""docs/manifest.md says what the schema says: every key with its default; the docs' examples are planned."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from manifests import write
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from experiments.identity import number_text
from experiments.loading import Loaded, load
from experiments.problems import ManifestError
from experiments.schema import Manifest
from experiments.yaml_source import read_document

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "manifest.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("```yaml\n")[1].split("```")[0]


def parts(annotation: Any) -> list[Any]:
    """What an annotation is made of, itself included."""
    inner = [part for each in get_args(annotation) for part in parts(each)]
    return [annotation, *([] if get_origin(annotation) is Literal else inner)]


def entries(top: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """A schema's entry and all that its fields hold, by name."""
    found = {top.__name__: top}
    for field in top.model_fields.values():
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= entries(part)
    return found


def shown(field: FieldInfo) -> str:
    """A default as the page writes it."""
    if field.is_required():
        return "needed"
    if isinstance(field.default, BaseModel):
        assert field.default == type(field.default)(), "an entry's default is that of its own fields"
        return "defaults"
    if field.default is None or field.default in ([], {}):
        return "none"
    return f"`{number_text(field.default)}`"


def rows_of(name: str) -> dict[str, tuple[str, str]]:
    """Key -> default and the rest of its row, in the table between an entry's marks."""
    table = PAGE.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    return {
        key: (default, rest)
        for key, default, rest in re.findall(r"^\| `(\w+)` \| (.*?) \|(.*)$", table, re.M)
    }


ENTRIES = entries(Manifest)


def test_every_entry_of_the_schema_is_found() -> None:
    assert {"Manifest", "FromScratch", "Adapter", "Source", "Pairs", "Speed", "Limits", "Slurm"} <= set(
        ENTRIES
    )
    assert set(re.findall(r"<!-- (\w+) -->", PAGE)) == set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_key_is_on_the_page_with_its_default(name: str) -> None:
    fields = ENTRIES[name].model_fields
    expected = {field.alias or key: shown(field) for key, field in fields.items()}
    assert {key: default for key, (default, _) in rows_of(name).items()} == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_every_word_that_a_key_may_have_is_in_its_row(name: str) -> None:
    for key, field in ENTRIES[name].model_fields.items():
        default, rest = rows_of(name)[field.alias or key]
        literals = [part for part in parts(field.annotation) if get_origin(part) is Literal]
        for word in (word for literal in literals for word in get_args(literal)):
            assert f"`{word}`" in default + rest, (key, word)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all files that the examples name."""
    rows = "".join(f'{{"source": "{n} apples", "reference": "{n} Äpfel"}}\n' for n in range(20))
    for name in ("train", "dev", "test", "tldr", "tldr_test"):
        write(tmp_path / "data", rows, f"{name}.jsonl")
    for name in ("google.wmt23.de", "tower.jsonl", "tower.flores.jsonl"):
        write(tmp_path / "outputs", rows.replace("source", "text"), name)
    monkeypatch.setenv("DATA", str(tmp_path / "outputs"))
    monkeypatch.setenv("MODELS", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def example(folder: Path) -> Loaded:
    return load(write(folder, EXAMPLE), folder / "runs")


def lines_of_manifests() -> list[Any]:
    """The examples of the other pages, which are to be put into that of docs/manifest.md."""
    pages = {
        name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("evaluation", "data", "adapters")
    }
    return [
        pytest.param(lines, id=f"{name}-{number}")
        for name, page in pages.items()
        for number, lines in enumerate(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    ]


def put_into(example: dict[str, Any], lines: dict[str, Any]) -> dict[str, Any]:
    """An example with further lines; what is there of a model, method or metric is replaced, a task grows."""
    merged = {**example}
    for section, entries_ in lines.items():
        old = merged.get(section, {})
        is_task = section == "tasks"
        merged[section] = old | {k: old.get(k, {}) | v if is_task else v for k, v in entries_.items()}
    return merged


@pytest.mark.parametrize("lines", lines_of_manifests())
def test_lines_of_other_pages_can_be_put_into_the_example(lines: str, folder: Path) -> None:
    base = read_document(write(folder, EXAMPLE)).data
    given = read_document(write(folder, lines, "lines.yaml")).data
    study = put_into(base, given)
    if "posts" in study["tasks"]:
        study["tasks"] = {"posts": study["tasks"]["posts"]}
        study["models"] = {"chat": {"id": "org/some-model"}}
        study["report"] = {"baseline": "sft"}  # that task has no dev
    for entry in study["methods"].values():
        for name in entry.get("outputs", {}):
            study["tasks"]["mt"]["tests"][name] = {"dataset": "data/test.jsonl"}
    assert len(load(write(folder, study), folder / "runs").grid.cells) >= 4


def test_the_example_has_the_cells_that_the_page_counts(example: Loaded) -> None:
    cells = example.grid.cells
    assert f"These are {len(cells)} cells" in PAGE
    counts = {name: sum(cell.method == name for cell in cells) for name in example.manifest.methods}
    assert counts == {"base": 1, "sft": 1, "dpo": 6, "simpo": 4, "dpo_sft": 4}
    assert example.grid.warnings == ()


def test_the_examples_override_and_grids_do_what_the_page_says(example: Loaded) -> None:
    cells = example.grid.cells
    assert {c.params["beta"]: c.training.epochs for c in cells if c.method == "dpo"} == {0.1: 1, 0.5: 2}
    assert {c.params["sft_weight"]: c.training.learning_rate for c in cells if c.method == "dpo_sft"} == {
        0.1: 1e-5,
        1.0: 1e-4,
    }
    assert all("dev" in example.manifest.test_names(task) for task in example.manifest.tasks)


def test_a_study_without_sft_is_refused_until_its_baseline_is_named(tmp_path: Path) -> None:
    study = """
        name: one
        models: {tiny: {from_scratch: {hidden_size: 64, layers: 1, heads: 1}}}
        tasks:
          numbers:
            type: translation
            target_lang: de
            data: {generator: numbers, sft: 9, train: 9, dev: 9, test: 9}
        methods: {base: {train: false}}
        seeds: [1]
    """
    with pytest.raises(ManifestError, match="'sft' \\(the default\\) is no method of this manifest"):
        load(write(tmp_path, study), tmp_path / "runs")
    named = load(write(tmp_path, f"{study}    report: {{baseline: base}}\n"), tmp_path / "runs")
    assert len(named.grid.cells) == 1


def test_the_metric_of_the_evaluation_page_scores(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8").split("## Your own metric")[1]
    write(tmp_path / "metrics", page.split("```python\n")[1].split("```")[0], "shared_words.py")
    definitions = read_document(write(tmp_path, page.split("```yaml\n")[1].split("```")[0])).data["metrics"]
    write(tmp_path, definitions, "own.yaml")
    write(tmp_path, "ein rotes Haus\nein Hund\n", "hyp.txt")
    write(tmp_path, "ein rotes Haus\neine Katze\n", "ref.txt")
    command = "-m eval.score --hyp hyp.txt --ref ref.txt --target-lang de --metrics shared --define own.yaml"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent) + os.pathsep + os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert re.search(r"^shared +50\.0000 ", done.stdout, re.MULTILINE), done.stdout + done.stderr
