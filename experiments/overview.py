"""The state of every stage of a study, from its files and, as a hint, from SLURM's queue."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

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


def survey(plan: RecordedPlan, queue: Queue) -> Overview:
    """Looks at every stage of a plan once."""
    listing = Listing(plan.root)
    rows: list[Row] = []
    for index in range(len(plan.jobs)):
        job = plan.jobs[index]
        element = queue.by_stage.get((job["folder"], job["stage"]))
        rows.append(_placed(_looked_at(plan, index, listing), plan.needs[index], rows, element))
    return Overview(plan, queue, rows)


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
        status = None if state == "done" else _checked(read_status(folder, stage))
        return Row(*row, state, status)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # whole JSON, but other types
        path = folder / f"status.{stage}.json"
        known = str(error) if str(path) in str(error) else f"{path}: not a status ({error!r})"
        return Row(*row, "damaged", fault=known)


def _checked(status: StageStatus | None) -> StageStatus | None:
    """The status, if what is shown of it can be shown."""
    if status is not None:
        float(status.start), float(status.heartbeat), int(status.attempt), dict(status.error or {})
    return status


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
