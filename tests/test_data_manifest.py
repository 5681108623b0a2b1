"""Manifests that bring data of other forms: what is understood, what is refused, what enters a hash."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from manifests import REMOVED, changed, faults, loaded, only_fault

PAIRED = {"source": "q", "chosen": "good", "rejected": "bad"}
LABELLED = {"source": "q", "completion": "a", "label": "good"}
RANKED = {"source": "q", "completions": "outs", "scores": "marks"}


def task(folder: Path, method: str = "dpo", pairs: Any = REMOVED, **train: Any) -> dict[str, Any]:
    """Changes of the small manifest: a local file as training data, one method beside sft."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"source": "a", "reference": "b"}\n')
    return {
        "tasks__numbers__data": REMOVED,
        "tasks__numbers__pairs": pairs,
        "tasks__numbers__train": {"dataset": str(rows)} | train,
        "tasks__numbers__tests": {"a": {"dataset": str(rows)}},
        "methods": {"sft": {}, method: {"method": method, "from": "sft"}},
    }


@pytest.mark.parametrize(
    ("method", "train"),
    [
        ("dpo", {"columns": PAIRED}),
        ("dpo", {"columns": RANKED, "pairing": "best-worst"}),
        ("dpo", {"adapter": "mt_pref"}),
        ("dpo", {"adapter": "wmt_mqm", "pairing": "all", "min_gap": 1.0}),
        ("kto", {"columns": PAIRED}),
        ("kto", {"columns": LABELLED}),
        ("kto", {"columns": RANKED, "pairing": "adjacent"}),
        ("pl_dpo", {"columns": RANKED}),
        ("pl_dpo", {"adapter": "wmt_mqm"}),
    ],
)
def test_methods_take_the_forms_that_they_learn_from(
    tmp_path: Path, method: str, train: dict[str, Any]
) -> None:
    assert faults(tmp_path, changed(**task(tmp_path, method, **train))) == []


@pytest.mark.parametrize(
    ("method", "train", "words"),
    [
        (
            "dpo",
            {"columns": LABELLED},
            "'dpo' learns from pairs, and the training data are single completions",
        ),
        ("dpo", {"columns": LABELLED}, ", kto) or data with both sides"),
        (
            "dpo",
            {"columns": RANKED},
            "the training data are rankings; say how they become pairs: train: {pairing",
        ),
        (
            "dpo",
            {"columns": {"source": "q"}},
            "'dpo' learns from pairs, and this task has none; give 'pairs:",
        ),
        (
            "kto",
            {"columns": RANKED},
            "learns from completions with labels, or pairs, and the training data are",
        ),
        (
            "kto",
            {},
            "and this task has none; give 'pairs: {from: sft}', or train the columns chosen and rejected",
        ),
        ("pl_dpo", {"columns": PAIRED}, "'pl_dpo' learns from rankings of several completions"),
        ("pl_dpo", {"columns": RANKED, "pairing": "all"}, "columns completions and scores, without pairing"),
    ],
)
def test_methods_that_cannot_learn_from_the_data_say_what_to_do(
    tmp_path: Path, method: str, train: dict[str, Any], words: str
) -> None:
    found = only_fault(tmp_path, **task(tmp_path, method, **train))
    assert found.startswith(f"tasks.numbers: '{method}' learns from ")
    assert words in found


@pytest.mark.parametrize("columns", [PAIRED, LABELLED, RANKED])
def test_sampled_pairs_beside_data_that_bring_their_own_are_refused(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    found = only_fault(tmp_path, **task(tmp_path, pairs={"from": "sft"}, columns=columns))
    assert found.startswith("tasks.numbers.pairs: the training data bring ")
    assert found.endswith("; keep one")


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (
            {"adapter": "mt_pre"},
            "'mt_pre' is no adapter; did you mean 'mt_pref'? Known: implicit_prompt, mt_pref",
        ),
        (
            {"adapter": "mt_pref", "columns": PAIRED},
            "the adapter mt_pref knows the columns; leave 'columns' out",
        ),
        (
            {"columns": PAIRED, "pairing": "all"},
            "pairing makes pairs of rankings; name the columns completions",
        ),
        ({"columns": RANKED, "min_gap": 1.0}, "min_gap is the smallest gap of a pair made by 'pairing'"),
        ({"columns": {"label": "x"}}, "label belongs to completion; name the column of completion too"),
        ({"columns": PAIRED | LABELLED}, "chosen and completion are different forms of rows"),
        (
            {"columns": RANKED, "pairing": "best"},
            "pairing: 'best': Input should be 'best-worst', 'adjacent' or",
        ),
    ],
)
def test_sources_that_contradict_themselves_are_refused(
    tmp_path: Path, train: dict[str, Any], words: str
) -> None:
    found = faults(tmp_path, changed(**task(tmp_path, **train)))
    assert any("tasks.numbers.train" in fault and words in fault for fault in found), found


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("over_long", "cut", "Input should be 'drop', 'truncate' or 'error'"),
        ("empty", "keep", "Input should be 'drop' or 'error'"),
        ("truncation", "keep_start", "truncation: keep_start needs over_long: truncate"),
    ],
)
def test_choices_that_are_none_or_have_no_effect_are_refused(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    assert words in only_fault(tmp_path, **{f"tasks__numbers__{key}": value})


def corpus(folder: Path, **changes: Any) -> Any:
    return loaded(folder, **changes).study.corpus("tiny", "numbers")


def test_only_a_choice_that_differs_from_the_default_enters_the_hash(tmp_path: Path) -> None:
    plain = corpus(tmp_path)
    choices = {"truncation", "over_long", "equal_pairs", "duplicates", "empty"}
    assert not choices & set(plain.document["rendering"])
    defaults = {"truncation": "keep_end", "over_long": "drop", "equal_pairs": "drop"} | {
        "duplicates": "keep",
        "empty": "error",
    }
    spelled = corpus(tmp_path, **{f"tasks__numbers__{key}": value for key, value in defaults.items()})
    assert spelled.digest == plain.digest
    other = corpus(tmp_path, tasks__numbers__over_long="truncate")
    assert other.digest != plain.digest
    assert other.document["rendering"]["over_long"] == "truncate"


def test_words_of_a_source_enter_its_hash_where_they_say_something(tmp_path: Path) -> None:
    plain = corpus(tmp_path, **task(tmp_path, columns=RANKED, pairing="all"))
    split = plain.document["splits"]["train"]
    assert not {"adapter", "min_gap", "subset"} & set(split)
    assert split["pairing"] == "all"
    wider = corpus(tmp_path, **task(tmp_path, columns=RANKED, pairing="all", min_gap=2.0))
    spelled = corpus(tmp_path, **task(tmp_path, columns=RANKED, pairing="all", adapter=None, min_gap=0.0))
    assert wider.digest != plain.digest == spelled.digest


def test_a_saved_folder_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    saved = Dataset.from_list([{"q": "a", "good": "b", "bad": "c"}])

    def digest(folder: Path) -> str:
        source = {"dataset": str(folder), "columns": PAIRED}
        found = corpus(tmp_path, **task(tmp_path, columns=PAIRED) | {"tasks__numbers__train": source})
        assert found.document["splits"]["train"]["dataset"] == str(folder)
        return str(found.digest)

    saved.save_to_disk(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    saved.add_item({"q": "d", "good": "e", "bad": "f"}).save_to_disk(tmp_path / "three")
    assert digest(tmp_path / "three") != digest(tmp_path / "one")
