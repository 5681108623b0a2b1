"""The raw rows of a data set, each with its place: JSONL, CSV, Parquet, a saved folder, an id on a hub."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.locations import is_local

Row = dict[str, Any]
_LONGEST_FIELD = 64 * 2**20  # of a CSV file, in characters; Python's own limit is 128 thousand


def raw_rows(source: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, Row]]:
    """Place and content of each row; rows that cannot even be read go to ``faults``.

    Args:
        source: as it stands in a unit's document.
        faults: gets a message for each.

    Raises:
        FileNotFoundError: the file is gone, or the data set cannot be had from the hub.
    """
    name = str(source["dataset"])
    if not is_local(name):
        yield from _of_datasets(source, name)
    elif name.endswith((".jsonl", ".json")):
        yield from _json_lines(Path(name), faults)
    elif name.endswith(".csv"):
        yield from _csv_rows(Path(name), faults)
    else:
        yield from _parquet_rows(name, faults)


def _of_datasets(source: Mapping[str, Any], name: str) -> Iterator[tuple[str, Row]]:
    """Rows of a hub's data set, of a folder of data files, or of one that ``save_to_disk`` has written."""
    from datasets import load_dataset, load_from_disk

    split, folder = source["split"] or "train", Path(name)
    if (folder / "dataset_dict.json").is_file():
        data = load_from_disk(name)[split]
    elif (folder / "state.json").is_file():
        data = load_from_disk(name)
    else:
        data = load_dataset(name, source.get("subset"), revision=source["revision"], split=split)
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
