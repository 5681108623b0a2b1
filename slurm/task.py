"""One element of an array: does the stages of its line of a frozen list, one after another.

    python -m slurm.task runs/demo/submissions/ID train-1 --index 3      # also by hand, outside of SLURM

Reads   ID/ARRAY.jsonl; the index comes from SLURM_ARRAY_TASK_ID unless it is given
Writes  what the stages write, below runs/demo/; their output goes to logs/STAGE.log of their folders
Exit    0 all done, also before or by others; 65 bad data or configuration; 69 what it needs is not done;
        75 held for long by a process outside of SLURM; 76 taken over by another process;
        85 to be started again: interrupted, failed with attempts left, or held for long by another job;
        anything else: failed for good
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from experiments.atomic import write_json
from experiments.claim import EXIT_HELD, EXIT_LOST, claim_state
from experiments.forking import SERVER_DIED, fork_stages
from experiments.owner import this_process
from experiments.repair import forget_damaged_result, state_to_start_from
from experiments.stage_command import write_command
from experiments.stage_process import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PARENT_MISSING,
)
from experiments.stage_status import effective_state, read_status
from slurm.submission import FrozenStage, read_element

HELD_S = 600.0  # an allocation is not held for longer than this while another process does the work
SEEN_S = 60.0  # a client of NFS may show a folder as it was a minute ago
_POLL_S, _HELD_POLL_S = 0.1, 2.0
_FINAL = frozenset({EXIT_DONE, EXIT_BAD_INPUT, EXIT_PARENT_MISSING, EXIT_INTERRUPTED, EXIT_LOST})


_MEANS = {
    EXIT_BAD_INPUT: "bad data or configuration",
    EXIT_HELD: "held by another process",
    EXIT_LOST: "taken over by another process",
    EXIT_INTERRUPTED: "to be started again",
}


class Element:
    """The stages of one element, done in their order.

    Args:
        root: the experiment's folder.
        stages: of the frozen list.
    """

    def __init__(self, root: Path, stages: Sequence[FrozenStage]) -> None:
        self.root, self.stages = root, stages
        self.stopping = False

    def run(self) -> int:
        """Exit code, as the module says. A stage that fails does not keep from those that do not need it."""
        worst = EXIT_DONE
        for stage in self.stages:
            code = EXIT_INTERRUPTED if self.stopping else self._do(stage)
            if code not in (EXIT_DONE, EXIT_PARENT_MISSING):
                _say(f"{stage.label}: {_MEANS.get(code, 'failed for good')} (exit code {code})")
            if code in (EXIT_INTERRUPTED, EXIT_LOST):
                return code
            worst = worst or code
        return worst

    def stop(self, *_: object) -> None:
        """Asks the stage that runs to save and end, and begins no other."""
        self.stopping = True

    def _do(self, stage: FrozenStage) -> int:
        folder, end = self.root / stage.folder, time.monotonic() + HELD_S
        while not self.stopping:
            state = state_to_start_from(folder, stage.stage, stage.command.stage_hash, _say)
            if state == "done":
                _say(f"{stage.label}: done before")
                return EXIT_DONE
            if missing := self._wait_for_needs(stage):
                _say(f"{stage.label}: needs {missing}, which is not done")
                return EXIT_PARENT_MISSING
            if state != "running":
                if state == "stale":
                    forget_damaged_result(folder, stage.stage, stage.command)
                code = self._attempt(stage)
                if code != EXIT_HELD:
                    return code
            elif time.monotonic() > end:
                return self._give_up_waiting(stage)
            time.sleep(_HELD_POLL_S)
        return EXIT_INTERRUPTED

    def _give_up_waiting(self, stage: FrozenStage) -> int:
        owner = claim_state(self.root / stage.folder, stage.stage).owner
        if owner is not None and owner.slurm_job is None:
            # a runner that may be at it for hours, or dead where nobody sees it: not to be asked for ever
            _say(f"{stage.label}: {owner} is at it; the next sbatch slurm/grid.sh looks again")
            return EXIT_HELD
        _say(f"{stage.label}: {owner or 'another process'} is at it; back to the queue")
        return EXIT_INTERRUPTED

    def _wait_for_needs(self, stage: FrozenStage) -> str | None:
        """What must be done first and is not; to SLURM a job that it has forgotten is one that ended well."""
        end = time.monotonic() + SEEN_S
        while True:
            missing, may_come = self._missing(stage)
            if not may_come or self.stopping or time.monotonic() > end:
                return missing
            time.sleep(_HELD_POLL_S)

    def _missing(self, stage: FrozenStage) -> tuple[str | None, bool]:
        """What is not done of what a stage needs, and whether it may be done and not be seen yet."""
        for folder, name, digest in stage.needs:
            place = self.root / folder
            with contextlib.suppress(OSError):
                os.listdir(place)  # a client of NFS then asks its server
            try:
                if effective_state(place, name, digest) == "done":
                    continue
                status = read_status(place, name)
            except ValueError as error:
                return f"{name} of {folder} ({error})", False
            ended = status is not None and status.stage_hash == digest and status.exit_code not in (None, 0)
            ours = any((each.folder, each.stage) == (folder, name) for each in self.stages)
            return f"{name} of {folder}", not (ended or ours)
        return None, False

    def _attempt(self, stage: FrozenStage) -> int:
        folder = self.root / stage.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / stage.document_name, dict(stage.document))
        write_command(folder, stage.stage, stage.command)
        _say(f"{stage.label}: log in {folder / 'logs' / (stage.stage + '.log')}")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", None if stage.command.gpus else "")
        gpus = None if visible is None else visible.split(",")  # some sites name GPUs in other ways
        stages, cpus = [(folder, stage.stage)], stage.command.cpus
        try:
            worker, _ = fork_stages(stages, cpus=cpus, gpus=gpus, name=stage.label)
            code = self._end_of(worker)
        except (EOFError, ConnectionError):  # killed while it loaded what stages need
            code = SERVER_DIED
        if self.stopping and (code < 0 or code == SERVER_DIED):
            return EXIT_INTERRUPTED  # the signal came when the stage listened no more
        if code in _FINAL or code == EXIT_HELD:
            return code
        return self._after_failure(stage, code)

    def _end_of(self, worker: ForkServerProcess) -> int:
        """Exit code of a stage's process, which is asked to save and end once this one was."""
        asked = False
        while (code := worker.exitcode) is None:
            if self.stopping and not asked:
                worker.terminate()
                asked = True
            time.sleep(_POLL_S)
        return code

    def _after_failure(self, stage: FrozenStage, code: int) -> int:
        """To be started again if attempts are left."""
        status = read_status(self.root / stage.folder, stage.stage)
        if status is None or status.state == "failed":
            return EXIT_FAILED if code < 0 else code
        used_up = status.attempt >= stage.command.max_attempts
        if used_up and status.state != "running":  # of one that was killed the next sees whether it got on
            return EXIT_FAILED if code < 0 else code
        tail = (status.error or {}).get("traceback_tail") or ["it ended without a word"]
        count = f"attempt {status.attempt} of {stage.command.max_attempts} failed ({tail[-1]})"
        _say(f"{stage.label}: {count}")
        return EXIT_INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m slurm.task",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("submission", type=Path, help="folder, such as runs/NAME/submissions/ID")
    parser.add_argument("array", help="name of a list in it, such as train-1, or report")
    parser.add_argument("--index", type=int, help="of the element; default: SLURM_ARRAY_TASK_ID")
    options = parser.parse_args(argv)
    if options.index is None:
        # without either, every element of an array would do the first
        told = os.environ.get("SLURM_ARRAY_TASK_ID", "0" if options.array == "report" else "")
        if not told.isdecimal():
            parser.error("--index is needed where SLURM_ARRAY_TASK_ID is not set")
        options.index = int(told)
    submission = options.submission.absolute()
    root = submission.parents[1]
    if options.array == "report":
        _header("report")
        _report(root)
    try:
        label, stages = read_element(submission, options.array, options.index)
    except (OSError, ValueError) as error:
        _say(str(error))
        return EXIT_BAD_INPUT
    _header(f"{options.array}[{options.index}] {label}")
    return run_element(Element(root, stages))


def run_element(element: Element) -> int:
    """Does the stages of an element while SIGTERM and SIGINT ask it to save and end."""
    before = {number: signal.signal(number, element.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return element.run()
    except OSError as error:  # its message says what to do
        _say(str(error))
        return EXIT_FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(root: Path) -> None:
    """Becomes the process that builds the report, whatever has failed: a report shows holes as such."""
    os.execv(sys.executable, [sys.executable, "-m", "reports.build", str(root)])


def _header(what: str) -> None:
    """Attempts follow one another in a log."""
    owner = this_process(60.0)
    job = f", job {owner.slurm_job}" if owner.slurm_job else ""
    restart = f", restart {owner.slurm_restart}" if owner.slurm_restart else ""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    _say(f"===== {what}: {when}, {owner.host}{job}{restart}{f', GPUs {gpus}' if gpus else ''} =====")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
