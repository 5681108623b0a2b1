"""Runs jobs in order of their needs, as many at a time as CPUs, GPUs and ``--jobs`` allow.

Several schedulers may share a folder: claims decide who does a stage.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from experiments.claim import ClaimHeldError
from experiments.graph import Job
from experiments.repair import forget_damaged_result, state_to_start_from
from experiments.stage_status import read_status, reset_status
from experiments.workers import Worker, start_worker

_HELD, _INTERRUPTED, _SERVER_DIED = 75, 85, 255
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

    def take(self, job: Job) -> tuple[str, ...] | None:
        """The GPUs for a job, or None if it has to wait; no job waits for more CPUs than there are."""
        if self.jobs < 1 or len(self.gpus) < job.gpus or self.cpus < min(job.cpus, self.all_cpus):
            return None
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
        outcomes: job key -> ``done``, ``failed``, ``blocked`` or ``interrupted``.
    """

    jobs: Sequence[Job]
    slots: _Slots
    display: Display
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)
    _workers: list[Worker] = field(default_factory=list)
    _started: dict[tuple[str, str], float] = field(default_factory=dict)
    _tries: dict[tuple[str, str], int] = field(default_factory=dict)
    _held_until: dict[tuple[str, str], float] = field(default_factory=dict)
    _stopping: bool = False

    def run(self) -> dict[tuple[str, str], str]:
        """Until nothing is left that could be done; ``stop`` ends it early."""
        waiting = list(self.jobs)
        while waiting or self._workers:
            self._reap(waiting)
            waiting = [job for job in waiting if not self._settled(job)]
            for job in list(waiting):
                if not self._stopping and self._may_start(job) and self._start(job):
                    waiting.remove(job)
            if self._stopping and not self._workers:
                break
            self.display.tick([worker.job for worker in self._workers])
            time.sleep(_POLL_S)
        return self.outcomes

    def stop(self, *, kill: bool) -> None:
        """Starts nothing more and asks (or forces) what runs to end."""
        self._stopping = True
        for worker in self._workers:
            worker.stop(kill=kill)

    def _settled(self, job: Job) -> bool:
        """Whether a job needs no process: done already, or something that it needs has failed."""
        if any(self.outcomes.get(needed.key) in ("failed", "blocked", "interrupted") for needed in job.needs):
            self._finish(job, "blocked")
            return True
        return False

    def _may_start(self, job: Job) -> bool:
        ready = all(self.outcomes.get(needed.key) == "done" for needed in job.needs)
        return ready and time.monotonic() >= self._held_until.get(job.key, 0.0)

    def _start(self, job: Job) -> bool:
        """Whether the job left the waiting list: it was started, or found done."""
        state = state_to_start_from(job, self.display.say)
        if state == "done":
            job.refresh_document()
            self._finish(job, "done")
            return True
        if state == "running":
            self._held_until[job.key] = time.monotonic() + _RETRY_HELD_S
            return False
        gpus = self.slots.take(job)
        if gpus is None:
            return False
        if job.key not in self._tries:
            self._allow_again(job, state)
        if state == "stale":
            forget_damaged_result(job)
        job.write_command_files()
        self._tries[job.key] = self._tries.get(job.key, 0) + 1
        self._started[job.key] = time.monotonic()
        self._workers.append(start_worker(job, gpus))
        if self._stopping:  # the signal came while the process was being started
            self._workers[-1].stop(kill=False)
        return True

    def _allow_again(self, job: Job, state: str) -> None:
        """Forgets earlier failures: running the same command again is how one tries again."""
        if (
            state in ("failed", "lost", "cancelled", "pending")
            and read_status(job.folder, job.stage) is not None
        ):
            # if another runner was faster, its process holds the stage now
            with contextlib.suppress(ClaimHeldError):
                reset_status(job.folder, job.stage)

    def _reap(self, waiting: list[Job]) -> None:
        for worker in [w for w in self._workers if w.exit_code is not None]:
            self._workers.remove(worker)
            self.slots.give_back(worker)
            job, code = worker.job, worker.exit_code
            assert code is not None
            if code == 0:
                self._finish(job, "done")
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
    return code < 0 or code in (_INTERRUPTED, _SERVER_DIED)


def make_slots(jobs: int | None, gpus: Sequence[str]) -> _Slots:
    """All CPUs of this machine, the GPUs that were named, and at most ``jobs`` processes."""
    cpus = len(os.sched_getaffinity(0))
    return _Slots(jobs or cpus, cpus, list(gpus), cpus)
