"""One element of an array: does the stages of its line of a frozen list, one after another.

    python -m slurm.task runs/demo/submissions/ID train-1 --index 3      # also by hand, outside of SLURM

Reads   ID/ARRAY.jsonl; the index comes from SLURM_ARRAY_TASK_ID unless it is given
Writes  what the stages write, below runs/demo/; their output goes to logs/STAGE.log of their folders
Exit    0 all done, also before or by others; 65 bad data or configuration; 69 what it needs is not done;
        76 taken over by another process; 85 to be started again: interrupted, failed with attempts left, or
        held by another process for long; anything else: failed for good
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from experiments.atomic import write_json
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
_POLL_S, _HELD_POLL_S = 0.1, 2.0
_FINAL = frozenset({EXIT_DONE, EXIT_BAD_INPUT, EXIT_PARENT_MISSING, EXIT_INTERRUPTED, 76})


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
                _say(f"{stage.label}: exit code {code}")
            if code in (EXIT_INTERRUPTED, 76):
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
            if missing := self._missing(stage):
                _say(f"{stage.label}: needs {missing}, which is not done")
                return EXIT_PARENT_MISSING
            if state != "running":
                if state == "stale":
                    forget_damaged_result(folder, stage.stage, stage.command)
                code = self._attempt(stage)
                if code != 75:
                    return code
            elif time.monotonic() > end:
                _say(f"{stage.label}: another process is at it; back to the queue")
                return EXIT_INTERRUPTED
            time.sleep(_HELD_POLL_S)
        return EXIT_INTERRUPTED

    def _missing(self, stage: FrozenStage) -> str | None:
        """What must be done first and is not; to SLURM a job that it has forgotten is one that ended well."""
        for folder, name, digest in stage.needs:
            if effective_state(self.root / folder, name, digest) != "done":
                return f"{name} of {folder}"
        return None

    def _attempt(self, stage: FrozenStage) -> int:
        folder = self.root / stage.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / stage.document_name, dict(stage.document))
        write_command(folder, stage.stage, stage.command)
        _say(f"{stage.label}: log in {folder / 'logs' / (stage.stage + '.log')}")
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        stages, cpus = [(folder, stage.stage)], stage.command.cpus
        try:
            worker, _ = fork_stages(stages, cpus=cpus, gpus=gpus, name=stage.label)
            code = self._end_of(worker)
        except (EOFError, ConnectionError):  # killed while it loaded what stages need
            code = SERVER_DIED
        if self.stopping and (code < 0 or code == SERVER_DIED):
            return EXIT_INTERRUPTED  # the signal came when the stage listened no more
        if code in _FINAL or code == 75:
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
        if status is None or status.state == "failed" or status.attempt >= stage.command.max_attempts:
            return EXIT_FAILED if code < 0 else code
        allowed = stage.command.max_attempts
        _say(f"{stage.label}: attempt {status.attempt} of {allowed} failed; to be tried again")
        return EXIT_INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m slurm.task",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("submission", type=Path)
    parser.add_argument("array")
    parser.add_argument("--index", type=int, default=int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")))
    options = parser.parse_args(argv)
    root = options.submission.parents[1]
    if options.array == "report":
        _header("report")
        _report(root)
    try:
        label, stages = read_element(options.submission, options.array, options.index)
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
