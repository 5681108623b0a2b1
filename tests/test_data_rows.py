"""Prepared rows are read back with what their form needs; a line that lacks it is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from po.faults import InputFault
from po.rows import PAIR_IDS, RANKED_IDS, TEXT_IDS, UNPAIRED_IDS, read_rows, read_training_rows, rows_digest

UNPAIRED = {"prompt_ids": [1], "completion_ids": [2], "desirable": False}
RANKED = {"prompt_ids": [1], "candidates_ids": [[2], [3, 4]], "candidates_scores": [1.0, 0.5]}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (UNPAIRED_IDS, UNPAIRED),
        (RANKED_IDS, RANKED),
        (TEXT_IDS, UNPAIRED),
        (PAIR_IDS, {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}),
    ],
)
def test_rows_of_each_form_are_read(tmp_path: Path, keys: tuple[str, ...], row: dict[str, Any]) -> None:
    assert read_rows(written(tmp_path, row, row), keys) == [row, row]


@pytest.mark.parametrize(
    ("keys", "row", "words"),
    [
        (UNPAIRED_IDS, {"prompt_ids": [1], "completion_ids": [2]}, "desirable is missing; it is true for"),
        (UNPAIRED_IDS, UNPAIRED | {"desirable": 1}, "desirable is 1; it is true for"),
        (UNPAIRED_IDS, UNPAIRED | {"completion_ids": []}, "completion_ids is empty; prompts and completions"),
        (RANKED_IDS, {"prompt_ids": [1]}, "candidates_ids is missing"),
        (
            RANKED_IDS,
            RANKED | {"candidates_ids": [[2]]},
            "candidates_ids has lists of 1 tokens; a ranking needs two",
        ),
        (RANKED_IDS, RANKED | {"candidates_ids": [[2], []]}, "candidates_ids has lists of 1, 0 tokens"),
    ],
)
def test_a_row_that_lacks_something_is_named_by_its_line(
    tmp_path: Path, keys: tuple[str, ...], row: dict[str, Any], words: str
) -> None:
    whole = UNPAIRED if keys == UNPAIRED_IDS else RANKED
    path = written(tmp_path, whole, row)
    with pytest.raises(InputFault) as raised:
        read_rows(path, keys)
    assert str(raised.value).startswith(f"{path}:2: {words}")


def test_the_digest_is_of_all_ids_and_of_nothing_else() -> None:
    digests = [
        rows_digest([row])
        for row in (
            UNPAIRED,
            UNPAIRED | {"completion_ids": [3]},
            UNPAIRED | {"prompt_ids": [2]},
            RANKED,
            RANKED | {"candidates_ids": [[2], [3]]},
        )
    ]
    assert len(set(digests)) == 5
    assert rows_digest([RANKED | {"candidates_scores": [9.0, 8.0]}]) == rows_digest([RANKED])


def test_an_unpaired_method_reads_pairs_too(tmp_path: Path) -> None:
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    assert read_training_rows(written(tmp_path, pair), "unpaired") == [pair]
    assert read_training_rows(written(tmp_path, UNPAIRED), "unpaired") == [UNPAIRED]
    with pytest.raises(InputFault, match="chosen_ids is missing"):
        read_training_rows(written(tmp_path, UNPAIRED), "paired")
