"""Prepared training rows: JSONL files of token ids, read into lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a prepared file.

    Raises:
        FileNotFoundError: the file is not there; says which stage makes it.
        ValueError: a line that is not JSON, with file and line number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it is written by the stages before training: python -m experiments.run MANIFEST")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not a JSON object ({error})") from None
    return rows


def rows_digest(rows: list[Row], keys: tuple[str, ...] = ("prompt_ids", "chosen_ids", "rejected_ids")) -> str:
    """SHA-256 of the rows' token ids in order: what log-probabilities depend on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row[key] for key in keys], separators=(",", ":")).encode())
    return digest.hexdigest()
