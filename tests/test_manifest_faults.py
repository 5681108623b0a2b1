"""What is wrong with a manifest is said at once: file, line, value, nearest name, and nothing is started."""

import os
from pathlib import Path
from typing import Any

import pytest
from manifests import REMOVED, SMALL, changed, faults, only_fault, write

from experiments import plan, run

FIVE_FAULTS = """\
name: five
models:
  tiny:
    from_scratch: {architecture: llama, hidden_size: 64, layers: 2, heads: 2}
    dtyp: float32
tasks:
  numbers:
    type: translation
    target_lang: de
    data: {generator: numbrs, sft: 40, train: 20, dev: 8, test: 12}
    pairs: {from: sft}
    metrics: [chrff]
methods:
  sft: {}
  dpo: {from: sfr, params: {beta: -0.1}}
seeds: [1]
"""


def test_five_faults_give_five_messages_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, FIVE_FAULTS)
    assert run.main([str(path), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: 5 faults, nothing was started\n")
    for line, place, words in [
        (5, "models.tiny.dtyp", "unknown key 'dtyp'; did you mean 'dtype'?"),
        (10, "tasks.numbers.data.generator", "'numbrs' is no generator; did you mean 'numbers'?"),
        (12, "tasks.numbers.metrics[0]", "'chrff' is no metric; did you mean 'chrf'?"),
        (15, "methods.dpo.from", "'sfr' is no method of this manifest; did you mean 'sft'?"),
        (15, "methods.dpo.params.beta", "dpo allows beta > 0 (reward per nat); -0.1 was given."),
    ]:
        assert f"  {path}:{line}: {place}\n      {words}" in said
    assert list(tmp_path.iterdir()) == [path]


def test_plan_reports_the_same_faults_with_the_same_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main([str(write(tmp_path, FIVE_FAULTS))]) == 2
    assert "5 faults, nothing was started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training__warmup": 3}, "training.warmup: unknown key 'warmup'; did you mean 'warmup_ratio'?"),
        ({"methods__dpo__gird": {}}, "methods.dpo.gird: unknown key 'gird'; did you mean 'grid'?"),
        (
            {"tasks__numbers__pairs__scorer": "chr"},
            "tasks.numbers.pairs.scorer: 'chr' is no metric; did you mean 'chrf'?",
        ),
        ({"tasks__numbers__pairs__from": "stf"}, "tasks.numbers.pairs.from: 'stf' is no method"),
        ({"tasks__numbers__pairs__from": "dpo"}, "sampled from 'dpo', which learns from these very pairs"),
        ({"tasks__numbers__generation__backend": "vlm"}, "'vlm' is no backend"),
        ({"tasks__numbers__generation__n": 3}, "n = 3 outputs need do_sample: true"),
        (
            {"tasks__numbers__generation__top_p": 1.5},
            "tasks.numbers.generation.top_p: 1.5: Input should be less than",
        ),
        ({"tasks__numbers__metrics": []}, "tasks.numbers.metrics: List should have at least 1 item"),
        ({"tasks__numbers__metrics": ["chrf", "chrf"]}, "names a metric twice"),
        ({"tasks__numbers__max_prompt_length": 500}, "the 512 positions of 'tiny'"),
        ({"tasks__numbers__target_lang": REMOVED}, "a translation task needs target_lang"),
        (
            {"methods__dop": {"from": "sft"}},
            "methods.dop: Unknown method 'dop'; did you mean 'dpop' or 'dpo'?",
        ),
        (
            {"methods__mine": {"method": "dppo", "from": "sft"}},
            "methods.mine.method: Unknown method 'dppo'; did you mean 'dpo' or 'sppo' or 'odpo'?",
        ),
        (
            {"methods__dpo__params": {"betta": 1.0}},
            "dpo has no parameter 'betta'; did you mean 'beta'? It has: beta, margin",
        ),
        (
            {"methods__dpo__params": {"learningrate": 1.0}},
            "dpo has no parameter 'learningrate'; did you mean 'learning_rate'?",
        ),
        (
            {"methods__dpo__params": {}, "methods__dpo__grid": {"beta": [0.1, -1]}},
            "methods.dpo.grid.beta[1]: dpo allows beta > 0",
        ),
        (
            {"methods__dpo__grid": {"learning_rate": [0]}},
            "methods.dpo.grid.learning_rate[0]: 0: Input should be greater than 0",
        ),
        (
            {"methods__dpo__params": {}, "methods__dpo__grid": {"beta": []}},
            "methods.dpo.grid.beta: the list is empty, so the method has no cells",
        ),
        (
            {"methods__dpo": {"from": "sft", "zip": {"beta": [1, 2], "learning_rate": [1e-5]}}},
            "one length: beta has 2, learning_rate has 1",
        ),
        (
            {"methods__dpo": {"from": "sft", "grid": {"beta": [1]}, "params": {"beta": 2}}},
            "'beta' stands in params and in grid",
        ),
        (
            {"methods__dpo": {"from": "sft", "grid": {"beta": [1]}, "zip": {"beta": [2]}}},
            "'beta' stands in grid and in zip",
        ),
        ({"methods__dpo__list": [{"beta": 0}]}, "methods.dpo.list[0].beta: dpo allows beta > 0"),
        (
            {"methods__dpo__from": REMOVED},
            "dpo holds the model to the one it starts from, and 'tiny' starts from random weights",
        ),
        (
            {"methods__base": {"train": False, "from": "sft"}},
            "train: false measures the model as it is; from would have no effect",
        ),
        (
            {"training__per_device_batch_size": 3},
            "global_batch_size 8 is not divisible by per_device_batch_size 3",
        ),
        (
            {"methods__dpo__params": {"per_device_batch_size": 5}},
            "methods.dpo.params: global_batch_size 8 is not divisible",
        ),
        (
            {"methods__dpo__grid": {"per_device_batch_size": [4, 3]}},
            "methods.dpo: global_batch_size 8 is not divisible",
        ),
        (
            {"resources": {"default": {"gpus": 4}}},
            "global_batch_size 8 is not divisible by 4 GPUs x 4 (per_device_batch_size)",
        ),
        (
            {"report": {"baseline": "stf"}},
            "report.baseline: 'stf' is no method of this manifest; did you mean 'sft'?",
        ),
        (
            {"report": {"select": {"metric": "chrff"}}},
            "report.select.metric: 'chrff' is no metric; did you mean 'chrf'?",
        ),
        (
            {"report": {"select": {"metric": "bleu"}}},
            "report.select.metric: 'bleu' is not measured in task 'numbers'",
        ),
        (
            {"report": {"select": {"metric": "chrf", "split": "test"}}},
            "report.select.split: 'test': Input should be 'dev'",
        ),
        (
            {"exclude": [{"when": {"method": "dop"}, "reason": "x"}]},
            "exclude[0].when.method: 'dop' is no method of this manifest",
        ),
        (
            {"exclude": [{"when": {"metod": "dpo"}, "reason": "x"}]},
            "'metod' cannot be matched; did you mean 'method'?",
        ),
        ({"exclude": [{"when": {"stage": "train"}, "reason": "x"}]}, "belongs to resources.rules"),
        (
            {"exclude": [{"when": {"params.betta": 1}, "reason": "x"}]},
            "no method of this manifest has 'betta'; did you mean 'params.beta'?",
        ),
        ({"exclude": [{"when": {"seed": {"lt": "two"}}, "reason": "x"}]}, "{'lt': 'two'} is no condition"),
        (
            {"resources": {"rules": [{"when": {"stage": "trian"}, "set": {"cpus": 2}}]}},
            "'trian' is no stage; did you mean 'train'?",
        ),
        (
            {"resources": {"rules": [{"when": {}, "set": {"gpu": 2}}]}},
            "'gpu' is no limit; did you mean 'gpus'?",
        ),
        (
            {"overrides": [{"when": {}, "set": {"training.epoch": 2}}]},
            "'training.epoch' cannot be set here; did you mean 'training.epochs'?",
        ),
        (
            {"overrides": [{"when": {}, "set": {"training.epochs": "two"}}]},
            "overrides[0].set.training.epochs: 'two': Input should be a valid number",
        ),
        (
            {"overrides": [{"when": {}, "set": {"params.epochs": 2}}]},
            "'epochs' is a setting of training; write training.epochs",
        ),
        ({"seeds": [1, 1]}, "seeds: [1, 1] names a seed twice"),
        ({"seeds": [-1]}, "seeds[0]: -1: Input should be greater than or equal to 0"),
        ({"models": {"a/b": SMALL["models"]["tiny"]}}, "models.a/b: 'a/b': a name is made of letters"),
        (
            {"methods__dpo": None},
            "methods.dpo: Input should be a valid dictionary or instance of Method; nothing is given here",
        ),
        ({"models__tiny__id": "org/name"}, "give either id (a hub id or a folder) or from_scratch"),
    ],
)
def test_each_fault_is_the_only_one_and_says_what_to_do(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in only_fault(tmp_path, **changes)


def test_a_name_of_several_methods_is_refused_with_the_choices(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, methods__hinge={"from": "sft"})
    assert "'hinge' means more than one method" in fault
    assert "'slic_dpo' (TRL's DPO trainer" in fault
    assert "'slic' (TRL's CPO trainer" in fault


def test_a_circle_of_parents_is_named_at_each_of_its_methods(tmp_path: Path) -> None:
    methods = {"sft": {"from": "again"}, "again": {"method": "sft", "from": "sft"}}
    found = faults(tmp_path, changed(methods=methods))
    assert set(found) == {
        "methods.again.from: 'again' starts from itself by way of 'sft'",
        "methods.sft.from: 'sft' starts from itself by way of 'again'",
    }


def test_an_unset_variable_says_how_to_set_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_ROOT", raising=False)
    source = {"dataset": "${DATA_ROOT}/train.jsonl"}
    data = changed(
        tasks__numbers__data=REMOVED, tasks__numbers__train=source, tasks__numbers__tests={"a": source}
    )
    found = faults(tmp_path, data)
    message = (
        "the environment variable DATA_ROOT is not set; put DATA_ROOT=/path/to/it in front of the command"
    )
    assert found == [f"tasks.numbers.tests.a.dataset: {message}", f"tasks.numbers.train.dataset: {message}"]
    (tmp_path / "train.jsonl").write_text('{"source": "a", "reference": "b"}\n')
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert faults(tmp_path, data) == []


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    there = tmp_path / "data.tsv"
    there.write_text("a\tb\n")
    data = changed(
        tasks__numbers__data=REMOVED,
        tasks__numbers__prompt="prompts/none.jinja",
        tasks__numbers__train={"dataset": str(tmp_path / "none.jsonl")},
        tasks__numbers__tests={"a": {"dataset": str(there)}},
        models={"m": {"id": "./weights", "chat_template": "none.jinja"}},
    )
    found = faults(tmp_path, data)
    for words in (
        f"there is no file '{tmp_path}/none.jsonl' (seen from {os.getcwd()})",
        f"'{there}' is no kind of file that can be read; known: .jsonl, .json, .csv, .parquet",
        "'prompts/none.jinja' is neither a file nor a template",
        "there is no folder './weights'",
        "'none.jinja' is neither a file nor a template",
    ):
        assert any(words in fault for fault in found), (words, found)
    assert len(found) == 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{{ sorce }}", "the template names 'sorce'; did you mean 'source'?"),
        ("{{ source }} {{ reference }}", "the template names 'reference'"),
        ("{{ source ", "the template is not Jinja"),
        ("{% if source %}", "the template is not Jinja: line 1"),
        ("{{ target_lang }}", "never shows the text itself; write {{ source }} where it belongs"),
    ],
)
def test_a_template_is_checked_before_anything_is_filled(tmp_path: Path, prompt: str, expected: str) -> None:
    assert expected in only_fault(tmp_path, tasks__numbers__prompt=prompt)
    (tmp_path / "prompt.jinja").write_text(prompt)
    assert expected.partition("; write")[0] in only_fault(
        tmp_path, tasks__numbers__prompt=str(tmp_path / "prompt.jinja")
    )


def test_only_a_prompt_length_that_was_written_down_must_fit_the_model(tmp_path: Path) -> None:
    small = {"models__tiny__from_scratch__max_positions": 100}
    assert faults(tmp_path, changed(**small, tasks__numbers__max_prompt_length=REMOVED)) == []
    assert "the 100 positions of 'tiny'" in only_fault(tmp_path, **small)


def test_a_paired_method_needs_pairs_from_somewhere(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, tasks__numbers__pairs=REMOVED)
    assert fault.startswith("tasks.numbers: 'dpo' learns from pairs, and this task has none")
    rule = {"when": {"method": "dpo", "task": "numbers"}, "reason": "no pairs"}
    assert faults(tmp_path, changed(tasks__numbers__pairs=REMOVED, exclude=[rule])) == []


def test_selecting_needs_a_development_split_of_every_task(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"source": "a", "reference": "b"}\n')
    source = {"dataset": str(rows)}
    parts = {
        "tasks__numbers__data": REMOVED,
        "tasks__numbers__train": source,
        "report": {"select": {"metric": "chrf"}},
    }
    fault = only_fault(tmp_path, **parts, tasks__numbers__tests={"a": source})
    assert "hyperparameters are chosen on the split dev, and task 'numbers' has none; give it dev" in fault
    assert "give it as dev:" in only_fault(
        tmp_path, **parts, tasks__numbers__tests={"a": source, "dev": source}, tasks__numbers__dev=source
    )
