"""The processes that do a runner's jobs: one stage each, or several that share what they load."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from experiments.forking import fork_stages
from experiments.job import Job


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
    stages = [(job.folder, job.stage) for job in jobs]
    process, codes = fork_stages(stages, cpus=jobs[0].cpus, gpus=gpus, name=jobs[0].label)
    return Worker(tuple(jobs), process, gpus, codes)
