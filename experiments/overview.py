"""The state of every stage of a study, from its files and, as a hint, from SLURM's queue."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from experiments.atomic import read_json
from experiments.recorded_plan import RecordedPlan
from experiments.stage_status import EffectiveState, StageStatus, effective_state, read_status
from experiments.submissions import Element, Queue

ShownState = Literal[EffectiveState, "queued", "submitted?", "waiting", "blocked", "damaged"]
STATES: tuple[ShownState, ...] = (
    "done",
    "running",
    "queued",
    "submitted?",
    "waiting",
    "pending",
    "interrupted",
    "stale",
    "lost",
    "failed",
    "blocked",
    "cancelled",
    "damaged",
)
WRONG: frozenset[ShownState] = frozenset({"lost", "failed", "blocked", "damaged"})
_ENDED = frozenset({"failed", "blocked", "cancelled", "damaged"})  # and what needs it cannot start
_OWN = frozenset({"done", "running", "failed", "cancelled", "damaged"})


@dataclass(frozen=True, slots=True)
class Row:
    """One stage of one folder.

    Attributes:
        index: of the job in the plan.
        folder: where it is done.
        status: what its file says; None where there is none, where it is damaged and for what is done.
        fault: what is wrong with that file.
        cause: index of the job that blocks it.
        element: of SLURM's queue that will do it, or does.
    """

    index: int
    folder: Path
    stage: str
    label: str
    state: ShownState
    status: StageStatus | None = None
    fault: str = ""
    cause: int | None = None
    element: Element | None = None


@dataclass(frozen=True)
class Overview:
    """A study at one moment; ``rows`` are in the plan's order."""

    plan: RecordedPlan
    queue: Queue
    rows: Sequence[Row]

    def of(self, *states: ShownState) -> list[Row]:
        """The rows that are in one of the states."""
        return [row for row in self.rows if row.state in states]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return all(row.state == "done" for row in self.rows)

    @cached_property
    def ended_unbegun(self) -> list[Path]:
        """Logs of elements of the newest submission that SLURM has started and that began no stage."""
        return [log for log in self._gone_unbegun if log.is_file()]

    @property
    def n_never_run(self) -> int:
        """Number of those that left the queue before SLURM has started them, as when they are cancelled."""
        return len(self._gone_unbegun) - len(self.ended_unbegun)

    @cached_property
    def _gone_unbegun(self) -> list[Path]:
        untouched = {row.index for row in self.of("pending", "waiting") if row.status is None}
        newest = max(self.plan.root.glob("submissions/*/jobs.json"), default=None)
        if not untouched or newest is None or not self.queue.answered:
            return []
        living = {element.log for element in (*self.queue.elements, *self.queue.stuck)}
        found = ((log, {self.plan.index.get(key) for key in keys}) for log, keys in _submitted(newest))
        # a stage whose status was deleted for a retry has its log
        begun = {row.index for row in self.rows if row.index in untouched and _has_log(row, newest)}
        untouched -= begun
        return [log for log, indices in found if log not in living and indices and indices <= untouched]


def survey(plan: RecordedPlan, queue: Queue) -> Overview:
    """Looks at every stage of a plan once."""
    listing = Listing(plan.root)
    rows: list[Row] = []
    for index in range(len(plan.jobs)):
        job = plan.jobs[index]
        element = queue.by_stage.get((job["folder"], job["stage"]))
        rows.append(_placed(_looked_at(plan, index, listing), plan.needs[index], rows, element))
    return Overview(plan, queue, rows)


def of_older_plans(plan: RecordedPlan, queue: Queue) -> list[Element]:
    """The elements in the queue that do stages, but none that the plan names."""
    elements = (*queue.elements, *queue.stuck) if queue.answered else ()
    return [e for e in elements if e.stages and not any(key in plan.index for key in e.stages)]


def _submitted(jobs: Path) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """Log and stages of all elements of the submission of a ``jobs.json``."""
    # what cannot be read tells of no element; of arrays that live the queue's faults say so
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        document = read_json(jobs)
        names = [] if document.get("cancelled") else [e["array"] for e in document["jobs"] if e["job"]]
        for name in names:
            path = jobs.parent / f"{name}.jsonl"
            content = path.read_text(encoding="utf-8") if path.is_file() else ""  # a report has no list
            for line in filter(None, content.split("\n")):
                entry = json.loads(line)
                keys = [(stage["folder"], stage["stage"]) for stage in entry["stages"]]
                yield jobs.parent / "logs" / name / f"{entry['index']}.log", keys


def _has_log(row: Row, jobs: Path) -> bool:
    """Whether a stage has printed something since the submission of a ``jobs.json`` was made."""
    with contextlib.suppress(OSError):
        # its folder and lists are older than jobs.json, which is written again for every array
        made = (jobs.parent / "manifest.yaml").stat().st_mtime
        return (row.folder / "logs" / f"{row.stage}.log").stat().st_mtime >= made
    return False


@dataclass
class Listing:
    """Names of the files in the folders of a study; each folder is listed once.

    Most stages of a large study have not begun. Asking for their files one by one would be three calls
    to the file server each.
    """

    root: Path
    _names: dict[str, frozenset[str]] = field(default_factory=dict)

    def names(self, folder: str) -> frozenset[str]:
        """Names in a folder below the root, none where it is not there."""
        if folder not in self._names:
            above, _, name = folder.rpartition("/")
            there = not above or name in self.names(above)
            self._names[folder] = _names_in(self.root / folder) if there else frozenset()
        return self._names[folder]


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _looked_at(plan: RecordedPlan, index: int, listing: Listing) -> Row:
    """A job by its own files alone."""
    job = plan.jobs[index]
    folder, stage = plan.root / job["folder"], job["stage"]
    row = (index, folder, stage, job["label"])
    if not {f"status.{stage}.json", f"claim.{stage}"} & listing.names(job["folder"]):
        return Row(*row, "pending")
    try:
        state = effective_state(folder, stage, job["stage_hash"])
        status = None if state == "done" else read_status(folder, stage)
        return Row(*row, state, status)
    except ValueError as error:
        return Row(*row, "damaged", fault=str(error))


def _placed(row: Row, needs: Sequence[int], before: Sequence[Row], element: Element | None) -> Row:
    """The row among the others: what it waits for, and who will do it."""
    if row.state in _OWN:
        return replace(row, element=element) if row.state != "done" and element else row
    blocking = next((before[need] for need in needs if before[need].state in _ENDED), None)
    if blocking is not None:
        cause = blocking.index if blocking.cause is None else blocking.cause
        return replace(row, state="blocked", cause=cause)
    # an element that runs may have begun this stage, lost it and gone on to another
    if element is not None and (row.state == "pending" or not element.runs):
        return replace(row, state="queued" if element.state else "submitted?", element=element)
    if row.state == "pending" and any(before[need].state != "done" for need in needs):
        return replace(row, state="waiting")
    return row
