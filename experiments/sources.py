"""Raw rows of a data set: JSONL, CSV or Parquet, an id on a hub, or a generator; every line is checked."""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.generators import GENERATORS
from experiments.locations import is_local
from experiments.problems import nearest

Row = dict[str, Any]
MAX_FAULTS = 20
_LONGEST_FIELD = 64 * 2**20  # of a CSV file, in characters; Python's own limit is 128 thousand
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
        heading = f"{name}: {len(faults)} bad row{plural}; mend or remove them, nothing was written"
        super().__init__(f"{heading}\n  " + "\n  ".join(shown) + more)


def load_rows(source: Mapping[str, Any], kind: str) -> list[Row]:
    """The rows of a source, with our column names.

    Args:
        source: as it stands in a unit's document.
        kind: what the rows are for: ``sft``, ``pairs`` (of the data set's own), ``prompts`` or ``test``.

    Raises:
        DataError: rows that lack a text, hold no text, repeat an id, are not Unicode; or no rows.
        FileNotFoundError: the file is gone.
    """
    if "generator" in source:
        generator = GENERATORS[source["generator"]]
        made = generator.generate(source["seed"], {source["split"]: source["size"]})[source["split"]]
        return [_renamed(row, {}) for row in made]
    name, limit = str(source["dataset"]), source["limit"]
    faults: list[str] = []
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for place, raw in _raw_rows(source, name, faults):
        row = _renamed(raw, source["columns"])
        row["id"] = str(row.get("id", len(rows)))
        problem = _missing_column(raw, source["columns"]) or _fault(row, kind)
        if problem is None and row["id"] in seen:
            problem = f"id '{row['id']}' stands at {seen[row['id']]} already"
        if problem:
            faults.append(f"{place}: {problem}")
            continue
        seen[row["id"]] = place
        rows.append(row)
        if limit is not None and len(rows) >= limit:
            break
    if faults:
        raise DataError(name, faults)
    if not rows:
        raise DataError(name, [f"{name}: the data set is empty"])
    return rows


def _raw_rows(source: Mapping[str, Any], name: str, faults: list[str]) -> Iterator[tuple[str, Row]]:
    """Place and content of each row; rows that cannot even be read go to ``faults``."""
    if not is_local(name):
        yield from _hub_rows(source, name)
    elif name.endswith((".jsonl", ".json")):
        yield from _json_lines(Path(name), faults)
    elif name.endswith(".csv"):
        yield from _csv_rows(Path(name), faults)
    else:
        yield from _parquet_rows(name, faults)


def _hub_rows(source: Mapping[str, Any], name: str) -> Iterator[tuple[str, Row]]:
    from datasets import load_dataset

    data = load_dataset(name, revision=source["revision"], split=source["split"] or "train")
    for index, row in enumerate(data):
        yield f"{name}: row {index}", dict(row)


def _parquet_rows(name: str, faults: list[str]) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        # not by way of pandas, which turns missing texts into the number NaN
        rows = pyarrow.parquet.read_table(name).to_pylist()
    except pyarrow.ArrowInvalid as error:
        faults.append(f"{name}: not a Parquet file ({error})")
        return
    for index, row in enumerate(rows):
        yield f"{name}: row {index}", row


def _csv_rows(path: Path, faults: list[str]) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if None in row:
                    faults.append(f"{place}: more fields than the header has; quote texts that hold commas")
                else:
                    yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            faults.append(f"{path}:{reader.line_num + 1}: not CSV in UTF-8 ({error})")


def _json_lines(path: Path, faults: list[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            faults.append(f"{place}: not JSON in UTF-8, one object a line ({error})")
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            faults.append(f"{place}: a JSON object was expected, one a line; this is a {type(row).__name__}")


def _missing_column(raw: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    for ours, theirs in columns.items():
        if theirs not in raw:
            return f"there is no column '{theirs}' (named for {ours}); {nearest(theirs, raw)}"
    return None


def _renamed(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    row: Row = {}
    for ours in ("id", "category", *_TEXTS, "references", *_SCORES):
        names = (columns[ours],) if ours in columns else (ours, *_OTHER_NAMES.get(ours, ()))
        found = next((name for name in names if raw.get(name) is not None), None)
        if found is not None:
            row[ours] = raw[found]
    references = row.get("references", row.get("reference"))
    if references is not None:
        listed = references if isinstance(references, list | tuple) else [references]
        row["references"] = [text for text in listed if text is not None]
    return row


def _fault(row: Row, kind: str) -> str | None:
    """What is wrong with a row that is to be used for ``kind``, or None."""
    needed = {"sft": ("references",), "test": ("references",), "prompts": (), "pairs": ("chosen", "rejected")}
    if not row.get("source") and not row.get("prompt"):
        return "no text under source (or prompt); name its column in 'columns'"
    for name in needed[kind]:
        if not row.get(name):
            return f"no text under {name.removesuffix('s')}; name its column in 'columns'"
    texts = [(name, row[name]) for name in ("id", *_TEXTS) if name in row]
    texts += [("reference", text) for text in row.get("references", ())]
    for name, text in texts:
        problem = _text_fault(text)
        if problem:
            return f"{name} {problem}"
    if kind == "pairs" and row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same text"
    return next(
        (f"{name} = {row[name]!r} is no number" for name in _SCORES if not _is_score(row.get(name))), None
    )


def _is_score(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
