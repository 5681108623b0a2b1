"""Raw rows of a data set: local JSONL, CSV or Parquet, a data set id, or a generator; every line is checked."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.checks import is_local
from experiments.generators import GENERATORS

Row = dict[str, Any]
MAX_FAULTS = 20
_TEXTS = ("source", "reference", "prompt", "chosen", "rejected")
_SCORES = ("chosen_score", "rejected_score")
# What the columns of common data sets are called, tried where the manifest does not say.
_OTHER_NAMES = {
    "source": ("src", "document", "dialogue", "article", "text"),
    "reference": ("ref", "summary", "highlights", "target", "tgt"),
}


class DataError(ValueError):
    """Rows that cannot be used: file, line, what is wrong; all of them at once, up to a limit."""

    def __init__(self, name: str, faults: list[str]) -> None:
        shown = faults[:MAX_FAULTS]
        more = f"\n  ... and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        plural = "s" if len(faults) != 1 else ""
        super().__init__(f"{name}: {len(faults)} bad row{plural}; mend or remove them, nothing was written\n  " + "\n  ".join(shown) + more)


def load_rows(source: Mapping[str, Any], kind: str) -> list[Row]:
    """The rows of a source, with our column names.

    Args:
        source: as it stands in a unit's document.
        kind: what the rows are for: ``sft``, ``pairs`` (of the data set's own), ``prompts`` or ``test``.

    Raises:
        DataError: rows that lack a text, hold no text, repeat an id, are not Unicode.
        FileNotFoundError: the file is gone.
    """
    if "generator" in source:
        generator = GENERATORS[source["generator"]]
        made = generator.generate(source["seed"], {source["split"]: source["size"]})[source["split"]]
        return [_renamed(row, {}) for row in made]
    name = str(source["dataset"])
    faults: list[str] = []
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for place, raw in _raw_rows(source, name, faults):
        if source["limit"] is not None and len(rows) >= source["limit"]:
            break
        row = _renamed(raw, source["columns"])
        row.setdefault("id", f"{len(rows)}")
        row["id"] = str(row["id"])
        problem = _fault(row, kind) or (f"id '{row['id']}' stands at {seen[row['id']]} already" if row["id"] in seen else None)
        if problem:
            faults.append(f"{place}: {problem}")
            continue
        seen[row["id"]] = place
        rows.append(row)
    if faults:
        raise DataError(name, faults)
    if not rows:
        raise DataError(name, [f"{name}: the data set is empty"])
    return rows


def _raw_rows(source: Mapping[str, Any], name: str, faults: list[str]) -> Iterator[tuple[str, Row]]:
    if not is_local(name):
        yield from _hub_rows(source, name)
    elif name.endswith((".jsonl", ".json")):
        yield from _json_lines(Path(name), faults)
    elif name.endswith(".csv"):
        with Path(name).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield f"{name}:{reader.line_num}", row
    else:
        import pandas as pd

        for index, row in enumerate(pd.read_parquet(name).to_dict("records")):
            yield f"{name}: row {index}", {str(key): value for key, value in row.items()}


def _hub_rows(source: Mapping[str, Any], name: str) -> Iterator[tuple[str, Row]]:
    from datasets import load_dataset

    data = load_dataset(name, revision=source["revision"], split=source["split"] or "train")
    for index, row in enumerate(data):
        yield f"{name}: row {index}", dict(row)


def _json_lines(path: Path, faults: list[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            faults.append(f"{path}:{number}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            yield f"{path}:{number}", row
        else:
            faults.append(f"{path}:{number}: a JSON object was expected, this is a {type(row).__name__}")


def _renamed(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    row: Row = {}
    for ours in ("id", "category", *_TEXTS, "references", *_SCORES):
        names = (columns[ours],) if ours in columns else (ours, *_OTHER_NAMES.get(ours, ()))
        found = next((name for name in names if raw.get(name) is not None), None)
        if found is not None:
            row[ours] = raw[found]
    if "references" in row:
        row["references"] = [str(text) for text in row["references"]]
    elif isinstance(row.get("reference"), str):
        row["references"] = [row["reference"]]
    return row


def _fault(row: Row, kind: str) -> str | None:
    needed = {"sft": ("references",), "test": ("references",), "prompts": (), "pairs": ("chosen", "rejected")}[kind]
    if not row.get("source") and not row.get("prompt"):
        return "no text under source (or prompt); name its column in 'columns'"
    for name in needed:
        if not row.get(name):
            return f"no text under {name.removesuffix('s')}; name its column in 'columns'"
    for name in _TEXTS:
        text = row.get(name)
        if text is None:
            continue
        problem = _text_fault(text)
        if problem:
            return f"{name} {problem}"
    if kind == "pairs" and row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same text"
    return next((f"reference {problem}" for text in row.get("references", ()) if (problem := _text_fault(text))), None)


def _text_fault(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"is a {type(text).__name__}, not a text"
    if not text.strip():
        return "is empty"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    return None
