"""Rows of a data set under our column names: a file, a saved folder, an id on a hub, or a generator.

Every line is checked.
"""

from collections.abc import Mapping
from typing import Any

from experiments.data_columns import missing_column, our_row, renamed, row_fault
from experiments.data_files import Row, raw_rows
from experiments.generators import GENERATORS
from po.faults import InputFault

MAX_FAULTS = 20


class DataError(ValueError):
    """Rows that cannot be used: file, line, what is wrong; all of them at once, up to a limit."""

    def __init__(self, name: str, faults: list[str]) -> None:
        shown = faults[:MAX_FAULTS]
        more = f"\n  ... and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        plural = "s" if len(faults) != 1 else ""
        heading = f"{name}: {len(faults)} bad row{plural}; mend or remove them, nothing was written"
        super().__init__(f"{heading}\n  " + "\n  ".join(shown) + more)


def load_rows(source: Mapping[str, Any], kind: str, empty: str = "error") -> list[Row]:
    """The rows of a source, with our column names.

    Args:
        source: as it stands in a unit's document.
        kind: what the rows are for: ``sft``, ``pairs`` (of the data set's own), ``unpaired``, ``ranked``,
            ``prompts`` or ``test``.
        empty: whether an answer without text is an ``error``, or left for later to ``drop`` and count.

    Raises:
        DataError: rows that lack a text, hold no text, repeat an id, are not Unicode; or no rows.
        FileNotFoundError: the file is gone.
    """
    if "generator" in source:
        generator = GENERATORS[source["generator"]]
        made = generator.generate(source["seed"], {source["split"]: source["size"]})[source["split"]]
        return [renamed(row, {}) for row in made]
    name, limit = str(source["dataset"]), source["limit"]
    faults: list[str] = []
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for place, raw in raw_rows(source, faults):
        row = _checked(raw, source, kind, empty, place)
        if isinstance(row, str):
            faults.append(f"{place}: {row.removeprefix(f'{place}: ')}")
            continue
        row["id"] = str(row.get("id", len(rows)))
        if row["id"] in seen:
            faults.append(f"{place}: id '{row['id']}' stands at {seen[row['id']]} already")
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


def _checked(raw: Row, source: Mapping[str, Any], kind: str, empty: str, place: str) -> Row | str:
    """A row under our names, or what is wrong with it."""
    if fault := missing_column(raw, source.get("columns", {})):
        return fault
    try:
        row = our_row(raw, source, place)
    except InputFault as error:
        return str(error)
    # an id is a name, whatever it is written as
    return row_fault(row | ({"id": str(row["id"])} if "id" in row else {}), kind, empty) or row
