"""Rows of every form under our names: labels, rankings, conversations, adapters."""

from pathlib import Path
from typing import Any

from test_sources import jsonl, message, rows_of

ANSWER: dict[str, Any] = {"role": "assistant", "content": "Ho."}


def test_columns_of_other_forms_are_taken_only_where_they_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"source": "a", "target": "b", "label": "spam", "scores": [1]})
    assert rows_of(path) == [{"id": "0", "source": "a", "reference": "b", "references": ["b"]}]


def test_labelled_completions_are_read(tmp_path: Path) -> None:
    columns = {"source": "q", "completion": "a", "label": "good"}
    path = jsonl(tmp_path, {"q": "x", "a": "y", "good": 0}, {"q": "x", "a": [ANSWER], "good": True})
    assert rows_of(path, "unpaired", columns=columns) == [
        {"id": "0", "source": "x", "completion": "y", "desirable": False},
        {"id": "1", "source": "x", "completion": "Ho.", "desirable": True},
    ]
    path = jsonl(tmp_path, {"q": "x", "a": "y", "good": "perhaps"}, {"q": "x", "a": "", "good": 1})
    found = message(path, "unpaired", columns=columns)
    assert f"{path}:1: label is 'perhaps'; it is true (desirable) or false" in found
    assert f"{path}:2: no text under completion" in found


def test_rankings_are_read_best_first(tmp_path: Path) -> None:
    columns = {"source": "q", "completions": "outs", "scores": "marks"}
    path = jsonl(tmp_path, {"q": "x", "outs": ["low", "high"], "marks": [1, 2]})
    assert rows_of(path, "ranked", columns=columns) == [
        {"id": "0", "source": "x", "candidates": ["high", "low"], "candidates_scores": [2.0, 1.0]}
    ]
    path = jsonl(
        tmp_path, {"q": "x", "outs": ["low"], "marks": [1]}, {"q": "x", "outs": ["a", ""], "marks": [1, 2]}
    )
    found = message(path, "ranked", columns=columns)
    assert f"{path}:1: a ranking is a list of at least two completions" in found
    assert f"{path}:2: completion is empty" in found


def test_conversations_are_read_and_their_last_turn_is_the_source(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    other = {"role": "assistant", "content": "No."}
    path = jsonl(
        tmp_path,
        {"chosen": [*turns, ANSWER], "rejected": [*turns, other]},
        {"chosen": [*turns[1:], ANSWER], "rejected": [*turns[1:], other]},
        {"prompt": turns, "chosen": [ANSWER], "rejected": [other]},
    )
    whole, single, explicit = rows_of(path, "pairs")
    assert whole == {"id": "0", "source": "Hi?", "prompt": turns, "chosen": "Ho.", "rejected": "No."}
    assert single["prompt"] == "Hi?"  # one turn of a user is a text
    assert explicit == whole | {"id": "2"}
    found = message(
        jsonl(tmp_path, {"prompt": turns, "chosen": [turns[1], ANSWER], "rejected": [other]}), "pairs"
    )
    assert ":1: a completion of 2 messages; only the last answer is scored" in found


def test_an_adapter_takes_the_place_of_columns(tmp_path: Path) -> None:
    posts = {"post": "It rained.", "title": "Rain", "subreddit": "weather"}
    path = jsonl(tmp_path, {**posts, "summary": "Rain."}, posts)
    found = rows_of(path, "sft", adapter="tldr", limit=1)
    assert found[0]["references"] == ["Rain."]
    assert found[0]["category"] == "weather"
    assert f"{path}:2: the adapter tldr needs 'summary'" in message(path, "sft", adapter="tldr")
