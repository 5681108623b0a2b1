"""Processes of stages, forked from a server that has the heavy libraries loaded already.

A process does one stage, or several of a group one after the other, which then share what they load.

Importing transformers takes five seconds and more, which in a small grid is most of the time. The server
imports it once; a stage then starts in milliseconds and is still a process of its own: it can crash, be
killed, and frees all it took.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from experiments.job import Job

_PRELOAD = [
    "transformers",
    "transformers.trainer",
    "eval.score",
    "eval.generation.transformers_backend",
    "po.training.trainer",
    "po.training.checkpoint",
]


@dataclass
class Worker:
    """A running stage, or several that run one after the other.

    Attributes:
        codes: of several stages: their exit codes, as they end.
        over: whether the process has ended, as far as ``collect`` has told.
    """

    jobs: tuple[Job, ...]
    process: ForkServerProcess
    gpus: tuple[str, ...]
    codes: "Connection[int, int] | None" = None
    interrupted: bool = False
    over: bool = False
    _left: list[Job] = field(init=False)

    def __post_init__(self) -> None:
        self._left = list(self.jobs)

    @property
    def job(self) -> Job:
        """The stage that runs now, or the last one."""
        return (self._left or self.jobs[-1:])[0]

    def collect(self) -> list[tuple[Job, int | None]]:
        """Stages that have ended since the last call, with their exit codes.

        A code is minus the number of the signal that ended the process, and None for a stage of several that
        was not begun.
        """
        ending = self.process.exitcode  # before the pipe, which then holds all that was said
        found: list[tuple[Job, int | None]] = [(self._left.pop(0), code) for code in self._said()]
        if ending is None:
            return found
        self.over = True
        running = 0 if self.codes is not None and ending == 0 else 1
        found += [(job, ending if index < running else None) for index, job in enumerate(self._left)]
        self._left.clear()
        return found

    def _said(self) -> list[int]:
        """What has come through the pipe."""
        found: list[int] = []
        try:
            while self.codes is not None and self.codes.poll():
                found.append(self.codes.recv())
        except EOFError:
            pass  # the process has ended
        return found

    def stop(self, *, kill: bool) -> None:
        """Asks it to stop at the next safe point, or ends it at once."""
        self.interrupted = True
        if kill:
            self.process.kill()
        else:
            self.process.terminate()


def start_worker(jobs: Sequence[Job], gpus: tuple[str, ...]) -> Worker:
    """Starts the process of a stage, or of several with the same limits; it ends with this one in any case.

    Args:
        jobs: their commands are written already.
        gpus: that the process sees.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    # Ctrl-C reaches all processes of a terminal; the server must outlive it while it loads
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)
    stages = [(str(job.folder), job.stage) for job in jobs]
    codes, tell = context.Pipe(duplex=False) if len(jobs) > 1 else (None, None)
    limits = (jobs[0].cpus, gpus)
    process = context.Process(target=_run, args=(stages, *limits, tell), name=jobs[0].label)
    process.start()
    if tell is not None:
        tell.close()  # the child has its own
    return Worker(tuple(jobs), process, gpus, codes)


def _run(
    stages: Sequence[tuple[str, str]],
    cpus: int,
    gpus: tuple[str, ...],
    tell: "Connection[int, int] | None",
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the runner, which asks its workers to stop
    _end_with_runner()
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    os.environ["OMP_NUM_THREADS"] = str(cpus)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(cpus)
    from experiments.memory import keep_freed_memory
    from experiments.stage_batch import run_batch
    from experiments.stage_process import run_stage

    keep_freed_memory()
    atexit._clear()  # what the server registered is the server's
    try:
        if tell is None:
            ((folder, stage),) = stages
            sys.exit(run_stage(Path(folder), stage, log=True))
        run_batch([(Path(folder), stage) for folder, stage in stages], tell.send)
    finally:
        atexit._run_exitfuncs()  # before Python 3.13 a process of multiprocessing does not call them


def _end_with_runner() -> None:
    """Kills this process when the runner is gone: the pipe to it closes, even after kill -9."""
    runner = multiprocessing.parent_process()
    if runner is None:
        return

    def watch() -> None:
        wait([runner.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-runner").start()
