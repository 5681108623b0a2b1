"""Prepared training rows: JSONL files of token ids, read into lists."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from po.faults import InputFault

Row = dict[str, Any]

PAIR_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
TEXT_IDS = ("prompt_ids", "completion_ids")
UNPAIRED_IDS = ("prompt_ids", "completion_ids", "desirable")
RANKED_IDS = ("prompt_ids", "candidates_ids")


def read_rows(path: Path, ids: tuple[str, ...]) -> list[Row]:
    """The rows of a prepared file, at least one.

    Args:
        path: a JSONL file.
        ids: the keys that are needed: ``PAIR_IDS``, ``TEXT_IDS``, ``UNPAIRED_IDS`` or ``RANKED_IDS``. Token
            ids are not empty; ``desirable`` is a truth value; ``candidates_ids`` are two lists or more.

    Raises:
        InputFault: the file is missing or has no rows, or a line is no row with these ids; says which.
    """
    if not path.is_file():
        raise InputFault(
            f"{path} is missing; the stages before training write it: python -m experiments.run MANIFEST"
        )
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [_row(line, ids, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]
    if not rows:
        raise InputFault(
            f"{path} has no rows; loosen what is filtered out (pairs.min_gap, the length limits)"
        )
    return rows


def read_training_rows(path: Path, form: str) -> list[Row]:
    """The rows that a method trains on, at least one.

    Args:
        path: a JSONL file.
        form: ``Method.data``. Rows of pairs serve an unpaired method too.

    Raises:
        InputFault: as ``read_rows``.
    """
    ids = {"paired": PAIR_IDS, "unpaired": UNPAIRED_IDS, "ranked": RANKED_IDS, "supervised": TEXT_IDS}[form]
    if form == "unpaired" and "chosen_ids" in _first_row(path):
        ids = PAIR_IDS
    return read_rows(path, ids)


def _first_row(path: Path) -> Row:
    """The first row, or nothing where there is none that can be read."""
    if path.is_file():
        with path.open(encoding="utf-8") as file, contextlib.suppress(ValueError):
            row = json.loads(next((line for line in file if line.strip()), "{}"))
            return row if isinstance(row, dict) else {}
    return {}


def _row(line: str, ids: tuple[str, ...], place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputFault(
            f"{place}: not a JSON object ({error}); delete the file's folder and run again"
        ) from None
    if not isinstance(row, dict):
        raise InputFault(
            f"{place}: a {type(row).__name__}, not a JSON object; delete the file's folder and run again"
        )
    for key in ids:
        if fault := _fault(row, key):
            raise InputFault(f"{place}: {fault}")
    return row


def _fault(row: Row, key: str) -> str | None:
    """What is wrong with one value of a row, or None."""
    value = row.get(key)
    if key == "desirable":
        found = f"is {value!r}" if key in row else "is missing"
        remedy = "it is true for a completion to learn towards, false for one to learn away from"
        return None if isinstance(value, bool) else f"desirable {found}; {remedy}"
    if not value:
        found = "is empty" if key in row else "is missing"
        return f"{key} {found}; prompts and completions need at least one token"
    if key == "candidates_ids" and (len(value) < 2 or not all(value)):
        lengths = ", ".join(str(len(ids)) for ids in value)
        return f"candidates_ids has lists of {lengths} tokens; a ranking needs two or more, none empty"
    return None


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows' token ids and names of images in order: what log-probabilities depend on."""
    digest = hashlib.sha256()
    for row in rows:
        ids = [row["prompt_ids"], *_completions(row), *map(str, row.get("images") or ())]
        digest.update(json.dumps(ids, separators=(",", ":")).encode())
    return digest.hexdigest()


def _completions(row: Row) -> list[Any]:
    if "candidates_ids" in row:
        return list(row["candidates_ids"])
    return [row[key] for key in ("chosen_ids", "rejected_ids", "completion_ids") if key in row]
