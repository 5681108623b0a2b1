"""Run folder -> :class:`reports.results.Experiment`. What cannot be used is listed with its reason."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reports.measurements import read_measurement
from reports.results import SCHEMA, Cell, Experiment, Measurement, ReportError

STAGES = ("train", "generate", "score")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON document of this schema.

    Raises:
        ReportError: not JSON, not an object, or of another schema; the message names the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as fault:
        raise ReportError(f"{path}: cannot be read ({fault})") from fault
    if not isinstance(document, dict):
        raise ReportError(f"{path}: holds no JSON object")
    if document.get("schema", SCHEMA) != SCHEMA:
        raise ReportError(f"{path}: schema {document['schema']!r}; this report reads schema {SCHEMA}")
    return document


def read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The rows of a training log; a torn last line, which a running trainer leaves, is dropped.

    Raises:
        ReportError: a line before the last one is not JSON.
    """
    if not path.is_file():
        return ()
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as fault:
            if number < len(lines):
                raise ReportError(f"{path}:{number}: not JSON ({fault})") from fault
    return tuple(row for row in rows if isinstance(row, dict))


def _stage_state(folder: Path, record: Mapping[str, Any], measured: bool) -> tuple[str, str]:
    """The state of a cell and its reason, from the status of each stage in order.

    A cell that was scored by hand has no status files; its scores say that it is done.
    """
    for stage in STAGES:
        path = folder / f"status.{stage}.json"
        if not path.is_file():
            if measured or (stage == "train" and not record.get("train")):
                continue
            return "missing", f"{stage} has not started"
        status = read_json(path)
        state = str(status.get("state"))
        expected = record.get("hashes", {}).get(stage)
        if state == "done" and status.get("stage_hash") == expected:
            continue
        if state == "done":
            return "missing", f"{stage} was done with other settings"
        error = (status.get("error") or {}).get("class")
        return state, f"{stage}: {error}" if error else stage
    return "done", ""


def _measurements(
    root: Path, folder: Path, record: Mapping[str, Any]
) -> tuple[dict[str, Measurement], list[str]]:
    measurements: dict[str, Measurement] = {}
    problems: list[str] = []
    for test, place in record.get("tests", {}).items():
        generated = folder / place["folder"]
        if not (generated / "scores.json").is_file():
            continue
        try:
            documents = read_json(generated / "scores.json"), read_json(generated / "generation.json")
            rows = root / place["data"] / "rows.jsonl"
            measurements[test] = read_measurement(test, generated, rows, *documents)
            problems.extend(measurements[test].problems)
        except ReportError as fault:
            problems.append(str(fault))
    return measurements, problems


def _read_cell(root: Path, entry: Mapping[str, Any]) -> tuple[Cell, list[str]]:
    """One cell of the plan; its problems are those of files that cannot be used."""
    cell = Cell(
        name=entry["name"],
        model=entry["model"],
        task=entry["task"],
        method=entry["method"],
        seed=entry.get("seed"),
        axes=entry.get("axes") or {},
        state="missing",
        reason="not started",
    )
    folder = root / entry["folder"]
    if not (folder / "cell.json").is_file():
        return replace(cell, record={"parent": entry.get("parent")}), []
    try:
        record = read_json(folder / "cell.json")
        tests, problems = _measurements(root, folder, record)
        measured = set(tests) == set(record.get("tests", {}))
        state, reason = _stage_state(folder, record, measured)
        log = read_log(folder / "train_log.jsonl")
        training = read_json(folder / "train.json") if (folder / "train.json").is_file() else {}
    except ReportError as fault:
        return replace(cell, state="unreadable", reason="see the warnings"), [str(fault)]
    if state == "done" and not measured:
        state, reason = "unreadable", "scores are missing or cannot be used"
    finished = replace(
        cell,
        state=state,
        reason=reason,
        folder=folder,
        record=record,
        tests=tests,
        log=log,
        training=training,
    )
    return finished, problems


def _block(cells: Sequence[Cell], root: Path) -> tuple[Cell, ...]:
    """Mark the unstarted cells whose parent, or a parent's parent, failed."""
    by_folder = {cell.folder: cell for cell in cells if cell.folder}
    result = []
    for cell in cells:
        parent = by_folder.get(root / str(cell.record["parent"])) if cell.record.get("parent") else None
        while parent and parent.state == "missing" and parent.record.get("parent"):
            parent = by_folder.get(root / str(parent.record["parent"]))
        if cell.state == "missing" and parent and parent.state == "failed":
            cell = replace(cell, state="blocked", reason=f"{parent.name} failed")
        result.append(cell)
    return tuple(result)


def _entries(root: Path) -> list[dict[str, Any]]:
    """The cells on disk as entries of a plan, for folders that have none."""
    entries = []
    for path in sorted(root.glob("cells/*/cell.json")):
        record = read_json(path)
        names = {key: record[f"{key}_name"] for key in ("model", "task", "method")}
        kept = {key: record.get(key) for key in ("name", "seed", "axes")}
        entries.append({**kept, **names, "folder": path.parent.relative_to(root).as_posix()})
    return entries


def _overlaps(root: Path, cells: Sequence[Cell]) -> tuple[dict[str, Mapping[str, int]], list[str]]:
    overlaps: dict[str, Mapping[str, int]] = {}
    problems = []
    for cell in cells:
        for test, place in cell.record.get("tests", {}).items():
            key = f"{cell.model} / {cell.task} / {test}"
            path = root / place["data"] / "prepare.json"
            if key in overlaps or not path.is_file():
                continue
            try:
                overlaps[key] = read_json(path).get("overlap") or {}
            except ReportError as fault:
                overlaps[key] = {}
                problems.append(str(fault))
    return overlaps, problems


def _left_out(root: Path, cells: Sequence[Cell]) -> dict[str, Mapping[str, int]]:
    """Counts of the rows that the preparation of training data left out; a file that is gone says nothing."""
    found: dict[str, Mapping[str, int]] = {}
    for cell in cells:
        path = root / str(cell.record.get("corpus", "")) / "prepare.json"
        if not path.is_file():
            continue
        try:
            splits = read_json(path).get("splits") or {}
        except ReportError:
            continue  # told where its overlaps are read
        for split, counts in splits.items():
            lost = {key for key, count in counts.items() if key.startswith("dropped_") and count}
            if lost:
                dropped = {key.removeprefix("dropped_"): counts[key] for key in sorted(lost)}
                found[f"{cell.model} / {cell.task}: {split}"] = dropped | {"rows": counts["rows"]}
    return found


def read_experiment(root: Path) -> Experiment:
    """Read a run folder: the cells of its plan, or all cells on disk where there is no plan.

    Raises:
        ReportError: no such folder, nothing in it, or a plan that cannot be read.
    """
    if not root.is_dir():
        raise ReportError(f"{root}: no such folder; give the folder of an experiment, as in runs/NAME")
    planned = (root / "plan.json").is_file()
    plan = read_json(root / "plan.json") if planned else {}
    entries = plan.get("cells", []) if planned else _entries(root)
    if not entries:
        raise ReportError(
            f"{root}: no plan.json and no cells/*/cell.json, so there is nothing to report; "
            "run 'python -m experiments.run MANIFEST' first"
        )
    read = [_read_cell(root, entry) for entry in entries]
    cells = _block([cell for cell, _ in read], root)
    overlaps, faults = _overlaps(root, cells)
    report = plan.get("report") or {}
    return Experiment(
        folder=root,
        name=plan.get("name") or root.resolve().name,
        cells=cells,
        baseline=report.get("baseline"),
        select=report.get("select"),
        manifest_sha256=plan.get("manifest_sha256"),
        overlaps=overlaps,
        left_out=_left_out(root, cells),
        problems=tuple(problem for _, problems in read for problem in problems) + tuple(faults),
    )
