"""What one job of SLURM does: stages of one cell, one after another, with the same resources."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.job import Job
from experiments.schema_resources import Limits

Key = tuple[str, str]  # of experiments.job.Job: folder and stage


@dataclass(eq=False)
class Task:
    """An element of an array.

    Attributes:
        kind: the stage that it begins with.
        jobs: in their order.
        limits: what it asks for; the time is the longest of its stages'.
        needs: tasks of the same submission that must end well first, without those that others imply.
        queued: elements of earlier submissions that must, ``JOB_INDEX``, if no task above waits for it.
    """

    kind: str
    jobs: list[Job]
    limits: Limits
    needs: frozenset["Task"] = frozenset()
    queued: frozenset[str] = frozenset()
    above: frozenset["Task"] = field(default=frozenset(), repr=False)  # all that come first, at any distance

    @property
    def label(self) -> str:
        """What it does, for people."""
        stages = "+".join(dict.fromkeys(job.stage for job in self.jobs))
        return f"{stages} {self.jobs[0].unit.document['name']}"


def make_tasks(jobs: Sequence[Job], *, fuse: bool, queued: Mapping[Key, str] | None = None) -> list[Task]:
    """The tasks that do the jobs, needed tasks first.

    All preparations of one size are one task. A cell's pairs and reference values follow its training,
    where they ask for the same resources; so do its generations and scores, unless other cells wait for it.

    Args:
        jobs: what is to be done, needed jobs first; what they need and is not among them is done, or queued.
        fuse: whether stages share a task at all (preparations always do).
        queued: jobs that a living element of an earlier submission will do, with its id.
    """
    return _Assembly(jobs, fuse, queued or {}).tasks


class _Assembly:
    def __init__(self, jobs: Sequence[Job], fuse: bool, queued: Mapping[Key, str]) -> None:
        self.fuse, self.queued = fuse, queued
        self.tasks: list[Task] = []
        self._number: dict[Task, int] = {}
        self._of: dict[Key, Task] = {}
        self._parents = {
            needed.key for job in jobs if job.stage not in ("generate", "score") for needed in job.needs
        }
        for job in jobs:
            self._add(job)

    def _add(self, job: Job) -> None:
        first = [self._of[needed.key] for needed in job.needs if needed.key in self._of]
        queued = {self.queued[needed.key] for needed in job.needs if needed.key in self.queued}
        task = self._shared(job, first, queued)
        if task is None:
            above = frozenset(first).union(*(each.above for each in first))
            implied = frozenset().union(*(each.above for each in first))
            waits = frozenset(queued) - _waited_for(above)
            task = Task(job.stage, [], job.limits, frozenset(first) - implied, waits, above)
            self._number[task] = len(self.tasks)
            self.tasks.append(task)
        task.jobs.append(job)
        if task.limits.time != job.limits.time:
            longer = _longer(task.limits.time, job.limits.time)
            task.limits = task.limits.model_copy(update={"time": longer})
        self._of[job.key] = task

    def _shared(self, job: Job, first: Sequence[Task], queued: set[str]) -> Task | None:
        """The task that can do the job too."""
        if job.stage == "prepare":
            same = (task for task in self.tasks if task.kind == "prepare" and _alike(task.limits, job.limits))
            return next(same, None)
        if not self.fuse or job.stage == "train" or not first:
            return None
        last = max(first, key=self._number.__getitem__)
        if last.kind == "prepare" or not _alike(last.limits, job.limits):
            return None
        if job.stage == "generate" and any(each.key in self._parents for each in last.jobs):
            return None  # what waits for the training would wait for the generation too
        before = {last, *last.above}
        return last if all(task in before for task in first) and queued <= _waited_for(before) else None


def _waited_for(tasks: Iterable[Task]) -> frozenset[str]:
    """The elements of earlier submissions that must end well before all of these can have."""
    return frozenset().union(*(task.queued for task in tasks))


def _alike(one: Limits, other: Limits) -> bool:
    """Whether two stages ask for the same, but for the time."""
    return (one.cpus, one.gpus, one.nodes, one.mem) == (other.cpus, other.gpus, other.nodes, other.mem)


def _longer(one: str | None, other: str | None) -> str | None:
    """The longer of two limits; one that leaves it to the cluster says nothing of its length."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda time: seconds_of(time) or math.inf)


def seconds_of(time: str) -> int:
    """A time limit as SLURM writes it, in seconds: ``90`` are minutes, ``1-12:00:00`` a day and a half.

    0 stands for no limit.
    """
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
