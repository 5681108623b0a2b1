"""What was given to SLURM for a study and what its queue still holds of that.

Reads   RUN/submissions/<id>/jobs.json and <array>.jsonl (written by slurm.submit), the answer of squeue
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.atomic import read_json
from experiments.slurm_queue import QueuedElement, jobs_with_comment, living

NEVER = "DependencyNeverSatisfied"
_RUNNING = ("RUNNING", "COMPLETING")


@dataclass(frozen=True, slots=True)
class SubmittedArray:
    """One array of one submission, or a job that is none (``report``).

    Attributes:
        folder: ``submissions/<id>``.
        name: of its list and of its folder of logs.
        kind: a stage, or ``report``.
        job: SLURM's id.
    """

    folder: Path
    name: str
    kind: str
    job: str

    @property
    def comment(self) -> str:
        """That its job was submitted with."""
        return f"{self.folder.name}/{self.name}"

    def log(self, index: int) -> Path:
        """What SLURM's output file of one element is."""
        return self.folder / "logs" / self.name / f"{index}.log"


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an array, which does some stages one after another.

    Attributes:
        job: SLURM's name of it, ``123_4``, or ``123`` for a job that is no array.
        label: as in the list.
        stages: (folder relative to the run's, stage).
        hashes: of the outputs of these stages, in the same order.
        needs: folders that these stages read, relative to the run's.
        log: its output file.
        state: SLURM's word, such as PENDING; empty where the queue could not be asked.
        reason: why it waits, in SLURM's words.
    """

    job: str
    label: str
    stages: tuple[tuple[str, str], ...]
    log: Path
    state: str = ""
    reason: str = ""
    hashes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it has a node now."""
        return self.state in _RUNNING


@dataclass(frozen=True)
class Queue:
    """What SLURM still has to do for a study.

    Attributes:
        answered: squeue told; if not, ``elements`` is all that was ever submitted.
        arrays: those of which something lives, or all.
        elements: those that live and can start.
        stuck: those that wait for something that can never come.
        faults: files that could not be read.
    """

    answered: bool = True
    arrays: tuple[SubmittedArray, ...] = ()
    elements: tuple[Element, ...] = ()
    stuck: tuple[Element, ...] = ()
    faults: tuple[str, ...] = ()
    by_stage: Mapping[tuple[str, str], Element] = field(default_factory=dict)


def read_queue(root: Path) -> Queue:
    """What the queue holds of ``runs/<name>``; squeue is asked only where something was submitted."""
    faults: list[str] = []
    arrays = list(_arrays(root, faults))
    if not arrays:
        return Queue(faults=tuple(faults))
    found = living(sorted({array.job for array in arrays}))
    if found is not None:
        # an id alone may be a stranger's: of another cluster, or after SLURM has begun to count anew
        comments = {name.partition("_")[0]: queued.comment for name, queued in found.items()}
        arrays = [array for array in arrays if comments.get(array.job, "") in (None, array.comment)]
    elements = [element for array in arrays for element in _elements(array, found, faults)]
    able = tuple(element for element in elements if element.reason != NEVER)
    return Queue(
        answered=found is not None,
        arrays=tuple(arrays),
        elements=able,
        stuck=tuple(element for element in elements if element.reason == NEVER),
        faults=tuple(faults),
        by_stage={key: element for element in able for key in element.stages},
    )


def _arrays(root: Path, faults: list[str]) -> Iterator[SubmittedArray]:
    for path in sorted(root.glob("submissions/*/jobs.json")):
        try:
            document = read_json(path)
            # a driver that could not queue everything has cancelled what it had queued
            entries: list[Mapping[str, Any]] = [] if document.get("cancelled") else document["jobs"]
            entries = _with_ids(path.parent, entries)
            found = [SubmittedArray(path.parent, e["array"], e["kind"], str(e["job"])) for e in entries]
            if strange := [j for array in found if not ((j := array.job).isascii() and j.isdecimal())]:
                raise ValueError(f"job = {strange[0]!r}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"{path} cannot be read ({error}); what it submitted is not shown")
            continue
        yield from found


def _with_ids(folder: Path, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The jobs of a submission that have an id.

    A driver that was killed may have queued an array and not have written down its id: the array's comment
    tells.
    """
    if all(entry["job"] is not None for entry in entries):
        return list(entries)
    comments = jobs_with_comment(f"{folder.name}/") or {}
    ids = {comment.partition("/")[2]: job for job, comment in comments.items()}
    found = [{**entry, "job": entry["job"] or ids.get(entry["array"])} for entry in entries]
    return [entry for entry in found if entry["job"] is not None]


def _elements(
    array: SubmittedArray, found: Mapping[str, QueuedElement] | None, faults: list[str]
) -> Iterator[Element]:
    """The elements of one array that the queue holds; all of them where ``found`` is None."""
    if found is None:
        listed = _listed(array, None, faults)
        names = {index: f"{array.job}_{index}" for index in listed}
    else:
        names = {0: array.job} if array.job in found else {}  # no array, or one element
        for name in found:
            job, _, number = name.partition("_")
            if job == array.job and number.isdecimal():
                names[int(number)] = name
        listed = _listed(array, names, faults)
    for index, name in names.items():
        if index not in listed and array.kind != "report":
            faults.append(f"{array.folder / array.name}.jsonl lacks element {index}, which is in the queue")
        line = listed.get(index, _Line(array.name, (), (), ()))
        queued = found[name] if found is not None else None
        state, reason = (queued.state, queued.reason) if queued else ("", "")
        yield Element(name, line.label, line.stages, array.log(index), state, reason, line.hashes, line.needs)


@dataclass(frozen=True, slots=True)
class _Line:
    """What is read of a line of a frozen list."""

    label: str
    stages: tuple[tuple[str, str], ...]
    hashes: tuple[str, ...]
    needs: tuple[str, ...]


def _listed(array: SubmittedArray, wanted: Collection[int] | None, faults: list[str]) -> dict[int, _Line]:
    """The wanted lines of an array's frozen list, all if None, by their indices."""
    path = array.folder / f"{array.name}.jsonl"
    lines: dict[int, _Line] = {}
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file):
                entry = json.loads(line)
                index = entry.get("index", number)  # some may be missing between
                if wanted is None or index in wanted:
                    stages = tuple((stage["folder"], stage["stage"]) for stage in entry["stages"])
                    hashes = tuple(stage["command"]["stage_hash"] for stage in entry["stages"])
                    needs = tuple(need[0] for stage in entry["stages"] for need in stage.get("needs", ()))
                    lines[index] = _Line(entry["label"], stages, hashes, needs)
    except FileNotFoundError:
        if array.kind != "report":  # which has no list
            faults.append(f"{path} is not there; what its elements do is not shown")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        faults.append(f"{path} cannot be read ({error}); what its elements do is not shown")
    return lines
