"""Processes of stages, forked from a server that has the heavy libraries loaded already.

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
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_PRELOAD = [
    "transformers",
    "transformers.trainer",
    "eval.score",
    "eval.generation.transformers_backend",
    "po.training.trainer",
    "po.training.checkpoint",
    "experiments.preloaded",  # last
]

SERVER_DIED = 255
_UNTIL_DEAD_S = 0.5  # its pipes close a little before it counts as dead
_SERVER_STARTS = 3  # a server that is killed while it imports (out of memory) is started again


def fork_stages(
    stages: Sequence[tuple[Path, str]], *, cpus: int, gpus: Sequence[str] | None, name: str
) -> "tuple[ForkServerProcess, Connection[int, int] | None]":
    """Starts a process that does stages one after the other; it ends with this one in any case.

    Args:
        stages: folder and name of each; their commands are written already.
        cpus: threads that it computes with.
        gpus: that it sees; None for those that this process sees.
        name: of the process.

    Returns:
        The process, whose exit code is that of its stage; and of several, a pipe with their exit codes.

    Raises:
        OSError: no process can be started; the message says why.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    codes, tell = context.Pipe(duplex=False) if len(stages) > 1 else (None, None)
    work = [(str(folder), stage) for folder, stage in stages]
    try:
        process = _started(lambda: context.Process(target=_run, args=(work, cpus, gpus, tell), name=name))
    except BaseException:
        if codes is not None:
            codes.close()
        raise
    finally:
        if tell is not None:
            tell.close()  # the child has its own
    return process, codes


def _started(make: Callable[[], ForkServerProcess]) -> ForkServerProcess:
    """A process after its start, by a server that is started again where it was killed while it imported."""
    for _ in range(_SERVER_STARTS):
        _ensure_server()
        process = make()
        try:
            process.start()
        except (EOFError, ConnectionError):
            time.sleep(_UNTIL_DEAD_S)
            continue
        return process
    raise OSError(
        f"the process that imports for all stages ended {_SERVER_STARTS} times while it did so; was it "
        "killed, by a lack of memory perhaps?"
    )


def _ensure_server() -> None:
    """Starts the server, deaf to signals that are sent to all processes of a terminal or of a job.

    It alone can tell how its children end. They inherit its deafness, so that what is sent to one that is
    being forked is kept until it listens.
    """
    resource_tracker.ensure_running()  # the server's start begins with it, and it unblocks signals
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(
    stages: Sequence[tuple[str, str]],
    cpus: int,
    gpus: Sequence[str] | None,
    tell: "Connection[int, int] | None",
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the runner, which asks its workers to stop
    _end_with_runner()
    if gpus is not None:
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
