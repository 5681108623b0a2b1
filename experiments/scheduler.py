"""Runs jobs in order of their needs, as many at a time as CPUs, GPUs and ``--jobs`` allow.

Jobs of one group that are ready together share a process; where several GPUs are free they are dealt out.
Several schedulers may share a folder: claims decide who does a stage.
"""

import contextlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from experiments.claim import ClaimHeldError
from experiments.forking import SERVER_DIED
from experiments.job import Job
from experiments.repair import forget_damaged_result, state_to_start_from
from experiments.stage_status import EffectiveState, read_status, reset_status
from experiments.workers import Worker, start_worker

_HELD, _INTERRUPTED = 75, 85
_POLL_S = 0.05
_RETRY_HELD_S = 1.0
MAX_TRIES = (
    3  # of one invocation; a stage that was killed by the system is tried again, one that failed is not
)


class Display(Protocol):
    """What shows the user how far the jobs are."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def finished(self, job: Job, outcome: str, seconds: float) -> None:
        """A stage ended, or (0 seconds) needed no process."""

    def tick(self, running: Sequence[Job]) -> None:
        """Called again and again with what runs."""


@dataclass
class _Slots:
    """What is free on this machine."""

    jobs: int
    cpus: int
    gpus: list[str]
    all_cpus: int

    def room(self, job: Job) -> int:
        """How many jobs like this one could start now; no job waits for more CPUs than there are."""
        by_cpus = self.cpus // max(1, min(job.cpus, self.all_cpus))
        by_gpus = len(self.gpus) // job.gpus if job.gpus else by_cpus
        return max(0, min(self.jobs, by_cpus, by_gpus))

    def take(self, job: Job) -> tuple[str, ...]:
        """The GPUs for a job that there is room for."""
        self.jobs -= 1
        self.cpus -= job.cpus
        taken, self.gpus = self.gpus[: job.gpus], self.gpus[job.gpus :]
        return tuple(taken)

    def give_back(self, worker: Worker) -> None:
        self.jobs += 1
        self.cpus += worker.job.cpus
        self.gpus += worker.gpus


@dataclass
class Scheduler:
    """One run over a list of jobs.

    Attributes:
        outcomes: job key -> ``done``, ``failed``, ``blocked`` (by a failure) or ``interrupted``; of what was
            not begun nothing.
    """

    jobs: Sequence[Job]
    slots: _Slots
    display: Display
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)
    _workers: list[Worker] = field(default_factory=list)
    _started: dict[tuple[str, str], float] = field(default_factory=dict)
    _tries: dict[tuple[str, str], int] = field(default_factory=dict)
    _held_until: dict[tuple[str, str], float] = field(default_factory=dict)
    _left: set[tuple[str, str]] = field(default_factory=set)
    _stopping: bool = False
    _killing: bool = False

    def run(self) -> dict[tuple[str, str], str]:
        """Until nothing is left that could be done; ``stop`` ends it early."""
        waiting = list(self.jobs)
        while waiting or self._workers:
            self._reap(waiting)
            waiting = [job for job in waiting if not self._settled(job)]
            gone: set[tuple[str, str]] = set()
            for job in list(waiting):
                if job.key not in gone and not self._stopping and self._may_start(job):
                    for left in self._start(job, waiting):
                        gone.add(left.key)
                        waiting.remove(left)
            if self._stopping and not self._workers:
                break
            self.display.tick([worker.job for worker in self._workers])
            time.sleep(_POLL_S)
        return self.outcomes

    def stop(self, *, kill: bool) -> None:
        """Starts nothing more and asks (or forces) what runs to end."""
        self._stopping = True
        self._killing |= kill
        for worker in self._workers:
            worker.stop(kill=kill)

    def _settled(self, job: Job) -> bool:
        """Whether a job is not to be begun: something that it needs has failed, or was interrupted."""
        if any(self.outcomes.get(needed.key) in ("failed", "blocked") for needed in job.needs):
            self._finish(job, "blocked")
            return True
        if any(n.key in self._left or self.outcomes.get(n.key) == "interrupted" for n in job.needs):
            self._left.add(job.key)
            return True
        return False

    def _may_start(self, job: Job) -> bool:
        ready = all(self.outcomes.get(needed.key) == "done" for needed in job.needs)
        return ready and time.monotonic() >= self._held_until.get(job.key, 0.0)

    def _start(self, job: Job, waiting: Sequence[Job]) -> list[Job]:
        """Starts a job and those of its group; returns what left the waiting list: started, or found done."""
        left: list[Job] = []
        ready: list[tuple[Job, EffectiveState]] = []
        for each in self._together(job, waiting):
            state = state_to_start_from(each.folder, each.stage, each.stage_hash, self.display.say)
            if state == "done":
                each.refresh_document()
                self._finish(each, "done")
                left.append(each)
            elif state == "running":
                self._held_until[each.key] = time.monotonic() + _RETRY_HELD_S
            else:
                ready.append((each, state))
        room = self._room(job)
        if not ready or not room:
            return left
        batch = ready[: math.ceil(len(ready) / room)] if job.group else ready[:1]
        gpus = self.slots.take(job)
        for each, state in batch:
            self._prepare(each, state)
        self._workers.append(start_worker([each for each, _ in batch], gpus))
        if self._stopping:  # the signal came while the process was being started
            self._workers[-1].stop(kill=self._killing)
        return left + [each for each, _ in batch]

    def _together(self, job: Job, waiting: Sequence[Job]) -> list[Job]:
        """The job with all of its group that can start now."""
        if not job.group or not self._room(job):
            return [job]
        return [each for each in waiting if each.group == job.group and self._may_start(each)]

    def _room(self, job: Job) -> int:
        """How many processes for a job or its group could start now; without GPUs a group has one process."""
        room = self.slots.room(job)
        if not job.group or job.gpus:
            return room
        return min(room, int(all(worker.jobs[0].group != job.group for worker in self._workers)))

    def _prepare(self, job: Job, state: EffectiveState) -> None:
        """Writes what a job's process reads."""
        if job.key not in self._tries:
            self._allow_again(job, state)
        if state == "stale":
            forget_damaged_result(job.folder, job.stage, job.command)
        job.write_command_files()
        self._tries[job.key] = self._tries.get(job.key, 0) + 1
        self._started[job.key] = time.monotonic()

    def _allow_again(self, job: Job, state: EffectiveState) -> None:
        """Forgets earlier failures: running the same command again is how one tries again."""
        if (
            state in ("failed", "lost", "cancelled", "pending")
            and read_status(job.folder, job.stage) is not None
        ):
            # if another runner was faster, its process holds the stage now
            with contextlib.suppress(ClaimHeldError):
                reset_status(job.folder, job.stage)

    def _reap(self, waiting: list[Job]) -> None:
        for worker in list(self._workers):
            for job, code in worker.collect():
                self._settle(worker, job, code, waiting)
                self._started[worker.job.key] = time.monotonic()  # the next of several
            if worker.over:
                self._workers.remove(worker)
                self.slots.give_back(worker)

    def _settle(self, worker: Worker, job: Job, code: int | None, waiting: list[Job]) -> None:
        if code == 0:
            self._finish(job, "done")
        elif code is None:
            self._tries[job.key] -= 1
            waiting.append(job)
        elif code == _HELD and not self._stopping:
            self._held_until[job.key] = time.monotonic() + _RETRY_HELD_S
            waiting.append(job)
        elif not worker.interrupted and _ended_from_outside(code) and self._tries[job.key] < MAX_TRIES:
            waiting.append(job)
        elif worker.interrupted or code == _INTERRUPTED:
            self._finish(job, "interrupted")
        else:
            self._finish(job, "failed")

    def _finish(self, job: Job, outcome: str) -> None:
        self.outcomes[job.key] = outcome
        seconds = time.monotonic() - self._started[job.key] if job.key in self._started else 0.0
        self.display.finished(job, outcome, seconds)


def _ended_from_outside(code: int) -> bool:
    """Whether a signal ended or stopped a stage, or its server died; the stage itself has not failed."""
    return code < 0 or code in (_INTERRUPTED, SERVER_DIED)


def make_slots(jobs: int | None, gpus: Sequence[str]) -> _Slots:
    """All CPUs of this machine, the GPUs that were named, and at most ``jobs`` processes."""
    cpus = len(os.sched_getaffinity(0))
    return _Slots(jobs or cpus, cpus, list(gpus), cpus)
