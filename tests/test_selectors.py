"""Conditions of rules and of --only."""

from pathlib import Path
from typing import Any

import pytest
from manifests import loaded

from experiments.selectors import condition_fault, matches, parse_only

FACTS = {
    "model": "tiny",
    "method": "dpo",
    "seed": 1,
    "params.beta": 0.1,
    "params.length_norm": True,
    "params.scheduler": "cosine",
}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, True),
        ({"method": "dpo"}, True),
        ({"method": "cpo"}, False),
        ({"method": ["cpo", "dpo"]}, True),
        ({"method": "dpo", "seed": 2}, False),
        ({"seed": 1.0}, True),
        ({"params.beta": 0.10}, True),
        ({"params.beta": {"gt": 0.05, "le": 0.1}}, True),
        ({"params.beta": {"lt": 0.1}}, False),
        ({"params.beta": [{"lt": 0.1}, {"ge": 0.1}]}, True),
        ({"params.scheduler": {"lt": 1}}, False),
        ({"params.length_norm": True}, True),
        ({"params.length_norm": 1}, False),
        ({"seed": True}, False),
        ({"params.gamma": 0}, False),
        ({"stage": "train"}, False),
    ],
)
def test_a_rule_matches_by_value_list_or_range(when: dict[str, Any], expected: bool) -> None:
    assert all(condition_fault(key, condition) is None for key, condition in when.items())
    assert matches(when, FACTS) is expected


@pytest.mark.parametrize(
    ("key", "condition", "words"),
    [
        ("metod", "dpo", "'metod' cannot be matched; did you mean 'method'?"),
        ("seed", {}, "is no condition"),
        ("seed", {"below": 3}, "is no condition"),
        ("seed", {"lt": True}, "is no condition"),
        ("seed", {"lt": float("nan")}, "is no condition"),
        ("seed", [], "an empty list matches nothing"),
        ("seed", None, "None is no value"),
        ("params.beta", float("nan"), "nan is no value"),
        ("params.beta", [0.1, {"lt": "x"}], "is no condition"),
        ("stage", "scores", "'scores' is no stage; did you mean 'score'?"),
    ],
)
def test_a_condition_that_can_never_hold_is_a_fault(key: str, condition: Any, words: str) -> None:
    assert words in str(condition_fault(key, condition))


def test_only_reads_names_as_text_and_values_as_numbers() -> None:
    assert parse_only(
        "method=dpo, model=7, seed=1,seed=2,params.beta=1e-1,params.length_norm=true,stage=train"
    ) == {
        "method": ["dpo"],
        "model": ["7"],
        "seed": [1, 2],
        "params.beta": [0.1],
        "params.length_norm": [True],
        "stage": ["train"],
    }
    assert parse_only("") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dpo", "--only: 'dpo' is not of the form key=value"),
        ("mehtod=dpo", "--only: 'mehtod' cannot be matched; did you mean 'method'?"),
        ("stage=trian", "--only: 'trian' is no stage; did you mean 'train'?"),
        ("params.beta=nan", "--only: nan is no value"),
    ],
)
def test_a_bad_only_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="--only") as raised:
        parse_only(text)
    assert words in str(raised.value)


def selected(folder: Path, only: str, **changes: Any) -> list[str]:
    """Stage and folder name (without its hash) of every job."""
    jobs = loaded(folder, **changes).graph.select(parse_only(only))
    return [f"{job.stage} {job.unit.document['name']}" for job in jobs]


def test_only_takes_along_what_the_chosen_cells_need(tmp_path: Path) -> None:
    jobs = loaded(tmp_path).graph.select(parse_only("method=dpo,seed=1"))
    found = [f"{job.stage} {job.unit.document['name'].partition('--')[0]}" for job in jobs]
    assert sorted(found) == [
        "generate tiny.numbers.dpo.s1",
        "pairs tiny.numbers.sft.s1",
        "prepare tiny.numbers",
        "prepare tiny.numbers.test",
        "reference tiny.numbers.sft.s1",
        "score tiny.numbers.dpo.s1",
        "train tiny.numbers.dpo.s1",
        "train tiny.numbers.sft.s1",
    ]
    for place, job in enumerate(jobs):
        assert {needed.key for needed in job.needs} <= {before.key for before in jobs[:place]}


def test_only_a_stage_stops_there(tmp_path: Path) -> None:
    assert selected(tmp_path, "stage=prepare") == ["prepare tiny.numbers", "prepare tiny.numbers.test"]
    assert selected(tmp_path, "stage=pairs,seed=2") == [
        "prepare tiny.numbers",
        "train tiny.numbers.sft.s2",
        "pairs tiny.numbers.sft.s2",
    ]


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("method=dop", "--only: method=dop is in no cell; did you mean 'dpo'? Known: dpo, sft."),
        ("model=tiney", "--only: model=tiney is in no cell; did you mean 'tiny'? Known: tiny."),
        ("method=dpo,method=x", "--only: method=x is in no cell; known: dpo, sft."),
        ("seed=9", "--only: seed=9 is in no cell; known: 1, 2."),
        ("params.beta=0.2", "--only: params.beta=0.2 is in no cell; known: 0.1."),
        ("params.betta=0.1", "--only: no cell has 'params.betta'; did you mean 'params.beta'?"),
        ("method=sft,params.beta=0.1", "--only: no cell has all of method=sft, params.beta=0.1"),
        ("method=sft,stage=reference", "--only: no cell has all of method=sft, stage=reference"),
    ],
)
def test_only_with_a_value_that_names_nothing_is_an_error(tmp_path: Path, only: str, words: str) -> None:
    with pytest.raises(ValueError, match="--only") as raised:
        selected(tmp_path, only)
    assert str(raised.value).startswith(words)
