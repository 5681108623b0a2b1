"""Faults of a manifest say what to do: where several values belong, what a revision may be."""

from pathlib import Path
from typing import Any

import pytest
from manifests import changed, faults, only_fault


def test_an_unknown_parameter_with_no_near_name_is_one_sentence(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, methods__slic_dpo={"from": "sft", "params": {"label_smoothing": 0.1}})
    assert "slic_dpo has no parameter 'label_smoothing'; it has: beta, " in fault


@pytest.mark.parametrize(
    ("params", "listed"),
    [
        ({"gamma": [0.5, 1.0]}, "grid: {gamma: [0.5, 1]}"),
        ({"learning_rate": [1e-6, 2e-6]}, "grid: {learning_rate: [1e-06, 2e-06]}"),
        ({"nll_reduction": ["seq_sum", "seq_mean"]}, "grid: {nll_reduction: [seq_sum, seq_mean]}"),
    ],
)
def test_a_list_where_one_value_belongs_is_sent_to_the_grid(
    tmp_path: Path, params: dict[str, Any], listed: str
) -> None:
    found = faults(tmp_path, changed(methods__simpo={"from": "sft", "params": params}))
    assert any(fault.endswith(f". Several values belong into {listed}.") for fault in found), found


def test_a_list_in_the_grid_itself_is_not_sent_there(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, methods__simpo={"from": "sft", "grid": {"gamma": [[0.5, 1.0]]}})
    assert "[0.5, 1.0] was given" in fault and "belong" not in fault


PLACES = [
    ("models.hub.revision", "models__hub", {"id": "org/model"}),
    ("tasks.numbers.dev.revision", "tasks__numbers__dev", {"dataset": "org/data"}),
    ("metrics.mine.revision", "metrics", {"mine": {"kind": "comet", "model": "org/comet"}}),
]


def with_revision(entry: dict[str, Any], revision: str) -> dict[str, Any]:
    if "mine" in entry:
        return {"mine": with_revision(entry["mine"], revision)}
    return {**entry, "revision": revision}


@pytest.mark.parametrize(("place", "key", "entry"), PLACES)
@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("<commit>", "'<commit>' has '<', which no revision has; give a commit, a branch or a tag"),
        ("the newest", "'the newest' has ' ', which no revision has"),
        ("main~1", "has '~', which no revision has"),
        ("a..b", "has '..', which no revision has"),
        ("", "'' is empty; give a commit, a branch or a tag"),
    ],
)
def test_a_revision_that_git_cannot_have_is_refused(
    tmp_path: Path, place: str, key: str, entry: dict[str, Any], revision: str, words: str
) -> None:
    found = faults(tmp_path, changed(**{key: with_revision(entry, revision)}))
    (fault,) = [fault for fault in found if fault.startswith(place)]
    assert words in fault


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0+rc_2", "0f3a9c" * 6])
@pytest.mark.parametrize(("place", "key", "entry"), PLACES)
def test_commits_branches_and_tags_are_revisions(
    tmp_path: Path, place: str, key: str, entry: dict[str, Any], revision: str
) -> None:
    found = faults(tmp_path, changed(**{key: with_revision(entry, revision)}))
    assert not [fault for fault in found if "revision" in fault]
