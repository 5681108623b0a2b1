"""What stages will take, by what finished ones like them have taken."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.attempt_records import read_records

Entry = Mapping[str, Any]


class Projection:
    """Forecasts for the jobs of a study.

    Args:
        root: ``runs/<name>``.
        jobs: entries of ``plan.json``: ``folder`` (relative to ``root``), ``stage``, ``stage_hash``,
            ``shape``, ``cpus`` and ``gpus`` (of all nodes). Forecasts rest on the finished ones of them.

    Attributes:
        n_finished: how many those are.
    """

    def __init__(self, root: Path, jobs: Iterable[Entry]) -> None:
        took: dict[str, list[float]] = defaultdict(list)
        self.n_finished = 0
        for folder, entries in _by_folder(jobs).items():
            records = read_records(root / folder)
            for job in entries if records else ():
                seconds = seconds_taken(records, job["stage"], job["stage_hash"])
                if seconds is None:
                    continue
                self.n_finished += 1
                for likeness in _likenesses(job):
                    took[likeness].append(seconds)
        self._medians = {likeness: statistics.median(seconds) for likeness, seconds in took.items()}

    def seconds(self, job: Entry) -> float | None:
        """Wall-clock seconds of a job from its beginning; None where none like it has finished.

        The median of the jobs of its shape; for training where there are none, of all that train its model
        on its task.
        """
        return next((self._medians[name] for name in _likenesses(job) if name in self._medians), None)

    def gpu_hours(self, jobs: Iterable[Entry]) -> tuple[float, int]:
        """Hours times GPUs of jobs, and the number of jobs that could not be told and are not in it."""
        return self._hours(jobs, "gpus")

    def cpu_hours(self, jobs: Iterable[Entry]) -> tuple[float, int]:
        """As ``gpu_hours``, with cores."""
        return self._hours(jobs, "cpus")

    def _hours(self, jobs: Iterable[Entry], device: str) -> tuple[float, int]:
        total, n_unknown = 0.0, 0
        for job in jobs:
            seconds = self.seconds(job)
            n_unknown += seconds is None
            total += (seconds or 0.0) * job[device]
        return total / 3600, n_unknown


def seconds_taken(records: Sequence[Entry], stage: str, stage_hash: str) -> float | None:
    """What a stage has taken in all, with the attempts that led up to its end.

    Args:
        records: the attempts of its folder, in order.
        stage: name of the stage.
        stage_hash: of the output that is wanted.

    Returns:
        Seconds; None where its last attempt has not finished it.
    """
    total, last = 0.0, None
    for record in records:
        if record["stage"] != stage or record["stage_hash"] != stage_hash:
            continue
        if last is not None and _begins_anew(record, last):
            total = 0.0
        total += record["wall_s"] or 0.0
        last = record
    return total if last is not None and last["outcome"] == "done" else None


def _begins_anew(record: Entry, last: Entry) -> bool:
    """Whether an attempt owes nothing to the one before.

    One that was lost or interrupted has left checkpoints, even where its status was forgotten since.
    """
    if last["outcome"] == "failed":
        return bool(record["attempt"] <= last["attempt"])
    return bool(last["outcome"] == "done")


def _by_folder(jobs: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for job in jobs:
        found[job["folder"]].append(job)
    return found


def _likenesses(job: Entry) -> tuple[str, ...]:
    """Names for jobs that take about as long as this, the closest first."""
    shape = str(job.get("shape", ""))
    if not shape:
        return ()  # the plan of an older version
    if job["stage"] != "train" or shape.endswith(" untrained"):
        return (shape,)
    stage_model_task = " ".join(shape.split(" ")[:3])
    return shape, f"{stage_model_task} by any method"
