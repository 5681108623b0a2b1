"""Calls the module that does a stage, and turns every way to end into an exit code and an error."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.atomic import disk_remedy
from experiments.attempt_log import AttemptLog
from experiments.claim import EXIT_HELD, EXIT_LOST, Claim
from experiments.stage_command import StageCommand
from experiments.stage_status import measure_artefacts
from experiments.stopping import StopRequested, StopSignals

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 65
EXIT_PARENT_MISSING = 69
EXIT_INTERRUPTED = 85
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    exit_code: int
    error: dict[str, Any] | None = None
    artefacts: dict[str, dict[str, Any]] = field(default_factory=dict)


def call_stage(command: StageCommand, claim: Claim, stop: StopSignals, attempt: int, *, log: bool) -> Outcome:
    """Runs the stage to its end.

    Args:
        command: what to call.
        claim: ours; says where.
        stop: signals that break the stage off.
        attempt: its number, for the log.
        log: send all output to the end of ``logs/<stage>.log``.
    """
    if not log:
        return _run(command, claim.folder, stop)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    header = (
        f"===== {claim.stage}: attempt {attempt} of {command.max_attempts}, {when}, "
        f"{claim.owner.host}, pid {claim.owner.pid} ====="
    )
    attempt_log = AttemptLog(claim.folder / "logs" / f"{claim.stage}.log", header)
    with attempt_log.redirect():
        outcome = _run(command, claim.folder, stop)
    if outcome.error is not None and not outcome.error["traceback_tail"]:
        # The stage has said what is wrong and returned a code: what it said is in the log.
        outcome.error["traceback_tail"] = attempt_log.tail(_TAIL_LINES)
    return outcome


def _run(command: StageCommand, folder: Path, stop: StopSignals) -> Outcome:
    try:
        with stop.breaking_off():
            code = _call_main(command)
        artefacts = measure_artefacts(folder, command.artefacts) if code == EXIT_DONE else {}
    except (StopRequested, KeyboardInterrupt):
        return Outcome(EXIT_INTERRUPTED)
    except Exception as error:  # whatever the stage raises is its failure, not ours
        if stop.received is not None:  # raised by the stop, as when a child was stopped with us
            return Outcome(EXIT_INTERRUPTED)
        if remedy := disk_remedy(error):
            error.add_note(f"{folder}: {remedy}")
        traceback.print_exc()
        return Outcome(EXIT_FAILED, _described(error))
    if code == EXIT_DONE:
        return Outcome(EXIT_DONE, artefacts=artefacts)
    if code == EXIT_INTERRUPTED or stop.received is not None:
        return Outcome(EXIT_INTERRUPTED)
    # 75 and 76 speak of the claim, which a stage knows nothing of.
    told = EXIT_FAILED if code in (EXIT_HELD, EXIT_LOST) else code
    return Outcome(told, {"class": f"exit code {code}", "traceback_tail": []})


def _call_main(command: StageCommand) -> int:
    try:
        code = importlib.import_module(command.module).main(list(command.argv))
    except SystemExit as error:  # argparse leaves this way
        if error.code is None or isinstance(error.code, int):
            return error.code or EXIT_DONE
        sys.stderr.write(f"{error.code}\n")
        return EXIT_FAILED
    if type(code) is not int:
        raise TypeError(f"{command.module}.main returned {code!r}; an exit code is needed")
    return code


def _described(error: Exception) -> dict[str, Any]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    return {"class": name, "traceback_tail": lines[-_TAIL_LINES:]}
