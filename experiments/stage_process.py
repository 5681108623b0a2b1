"""The process that does one stage of one cell: claims it, runs it, says what became of it.

    python -m experiments.stage_process FOLDER STAGE [--log] [--die-with-parent PID]

Reads   FOLDER/stage.STAGE.json (what to run), FOLDER/status.STAGE.json (what is done already)
Writes  FOLDER/status.STAGE.json and a line of FOLDER/attempts.jsonl; with --log also FOLDER/logs/STAGE.log
Exit    0 done, also before; 65 bad data or configuration, not tried again; 69 the parent is missing;
        75 held by another process; 76 taken over by another process; 85 interrupted, to be started again;
        anything else: this attempt failed
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.attempt import make_attempt, say
from experiments.claim import EXIT_HELD, HEARTBEAT_S, Claim
from experiments.stage_call import EXIT_BAD_INPUT as EXIT_BAD_INPUT
from experiments.stage_call import EXIT_DONE as EXIT_DONE
from experiments.stage_call import EXIT_FAILED as EXIT_FAILED
from experiments.stage_call import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from experiments.stage_call import EXIT_PARENT_MISSING as EXIT_PARENT_MISSING
from experiments.stage_command import StageCommand, read_command
from experiments.stage_status import effective_state
from experiments.stopping import StopSignals, end_with_parent


def run_stage(
    folder: Path,
    stage: str,
    *,
    die_with_parent: bool | int = False,
    log: bool = False,
    heartbeat_s: float = HEARTBEAT_S,
    stop: StopSignals | None = None,
) -> int:
    """Does what ``stage.<stage>.json`` in the folder says, if nobody has or does. Main thread only.

    Args:
        folder: the cell's folder.
        stage: name of the stage.
        die_with_parent: have this process killed when its parent ends. The parent's pid is safer than
            True, which cannot notice a parent that died before this call.
        log: send all output to the end of ``logs/<stage>.log``.
        heartbeat_s: seconds between two signs of life.
        stop: signals that several stages of one process share; its own if None.

    Returns:
        The exit code, as listed above.

    Raises:
        ValueError: the command or the status is damaged.
        OSError: the folder cannot be read or written.
    """
    if die_with_parent is not False:
        end_with_parent(os.getppid() if die_with_parent is True else die_with_parent)
    command = read_command(folder, stage)
    if _is_done(folder, stage, command):
        return EXIT_DONE
    with contextlib.nullcontext(stop) if stop is not None else StopSignals() as signals:
        claim = Claim(folder, stage, heartbeat_s=heartbeat_s)
        with _signals_kept_from_new_threads():
            acquired = claim.acquire()
        if not acquired:
            say(folder, stage, f"held by {claim.held_by or 'an owner that cannot be read'}")
            return EXIT_HELD
        try:
            # The holder of a moment ago may have finished it.
            return (
                EXIT_DONE
                if _is_done(folder, stage, command)
                else make_attempt(command, claim, signals, log=log)
            )
        finally:
            claim.release()


@contextlib.contextmanager
def _signals_kept_from_new_threads() -> Iterator[None]:
    """Threads that start within leave the stop signals to the main thread; what comes meanwhile waits.

    The kernel may give a signal to any thread that takes it. Python would note it there, and the main thread
    would hear of it only when the call that it waits in returns.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_done(folder: Path, stage: str, command: StageCommand) -> bool:
    done = effective_state(folder, stage, command.stage_hash) == "done"
    if done:
        say(folder, stage, "already done")
    return done


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage; the module's docstring is the help."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stage_process",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage")
    parser.add_argument("--log", action="store_true", help="append all output to FOLDER/logs/STAGE.log")
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="end when the parent, PID, does")
    args = parser.parse_args(argv)
    parent = False if args.die_with_parent is None else args.die_with_parent
    try:
        return run_stage(args.folder, args.stage, die_with_parent=parent, log=args.log)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED if isinstance(error, OSError) else EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
