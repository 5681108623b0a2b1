"""Prepared training rows: JSONL files of token ids, read into lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

from po.faults import InputFault

Row = dict[str, Any]

PAIR_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
TEXT_IDS = ("prompt_ids", "completion_ids")


def read_rows(path: Path, ids: tuple[str, ...]) -> list[Row]:
    """The rows of a prepared file, at least one.

    Args:
        path: a JSONL file.
        ids: the keys whose token ids are needed, none of them empty: ``PAIR_IDS`` or ``TEXT_IDS``.

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
        if not row.get(key):
            found = "is empty" if key in row else "is missing"
            raise InputFault(f"{place}: {key} {found}; prompts and completions need at least one token")
    return row


def rows_digest(rows: list[Row]) -> str:
    """SHA-256 of the pairs' token ids in order: what log-probabilities depend on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row[key] for key in PAIR_IDS], separators=(",", ":")).encode())
    return digest.hexdigest()
