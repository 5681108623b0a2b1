"""One attempt at a stage under a claim that is ours, from the first status to the record of what it cost."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from experiments.attempt_records import record_attempt, record_lost
from experiments.claim import EXIT_LOST, Claim
from experiments.code_version import begin_reading
from experiments.cost_meter import CostMeter
from experiments.stage_call import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PARENT_MISSING,
    Outcome,
    call_stage,
)
from experiments.stage_command import StageCommand
from experiments.stage_status import StageStatus, State, read_status, write_status
from experiments.stopping import StopSignals

# What a stage adds to only when it gets on, and goes on from. Not the files beside these: they are written
# again whenever a stage starts.
_GETS_ON = {
    "train": "attempts/*/checkpoint-*/complete.json",
    "generate": "generate/*/generations.jsonl",
    "pairs": "candidates/generations.jsonl",
}


def make_attempt(command: StageCommand, claim: Claim, stop: StopSignals, *, log: bool) -> int:
    """Does what the command says, unless all attempts are used up or somebody has to look first.

    Args:
        command: what the stage is.
        claim: of the stage, ours.
        stop: signals that break the stage off.
        log: send all output to the end of ``logs/<stage>.log``.

    Returns:
        The exit code, as ``experiments.stage_process`` lists them.
    """
    folder, stage = claim.folder, claim.stage
    previous = read_status(folder, stage)
    record_lost(claim, previous)
    if previous is not None and previous.stage_hash != command.stage_hash:
        previous = None
    if previous is not None and previous.state in ("failed", "cancelled"):
        say(folder, stage, f"{previous.state} in attempt {previous.attempt}; to be retried by hand")
        return previous.exit_code or EXIT_FAILED
    status = _running(command, claim, previous)
    if previous is not None and status.attempt > command.max_attempts:
        write_status(folder, _given_up(previous, command))
        say(folder, stage, f"failed: all {command.max_attempts} attempts are used up")
        return EXIT_FAILED
    write_status(folder, status)
    claim.on_beat = lambda: write_status(folder, replace(status, heartbeat=time.time()))
    return _make(command, claim, stop, status, log=log)


def _make(command: StageCommand, claim: Claim, stop: StopSignals, status: StageStatus, *, log: bool) -> int:
    begin_reading()
    meter = CostMeter(claim.folder, claim.stage, command)
    with claim.in_environment():
        outcome = call_stage(command, claim, stop, status.attempt, log=log)
    cost = meter.stop()
    claim.stop_heartbeat()  # it writes the status too, and must not write after us
    if not claim.still_ours():
        say(claim.folder, claim.stage, "taken over by another process; nothing is published")
        return EXIT_LOST
    ended = _ended(status, outcome, command)
    write_status(claim.folder, ended)
    if outcome.exit_code != EXIT_PARENT_MISSING:
        record_attempt(claim, ended, command, cost)
    return outcome.exit_code


def _running(command: StageCommand, claim: Claim, previous: StageStatus | None) -> StageStatus:
    if previous is None or previous.state == "done":  # done, but what it left has been changed
        attempt = 1
    else:
        goes_on = previous.state == "interrupted" or _got_on(claim.folder, previous)
        attempt = previous.attempt + (not goes_on)
    now = time.time()
    return StageStatus(
        stage=claim.stage,
        state="running",
        stage_hash=command.stage_hash,
        attempt=attempt,
        host=claim.owner.host,
        pid=claim.owner.pid,
        boot_id=claim.owner.boot_id,
        token=claim.owner.token,
        start=now,
        heartbeat=now,
    )


def _got_on(folder: Path, previous: StageStatus) -> bool:
    """Whether an attempt that was lost has left something to go on from.

    A cluster that takes nodes away without a grace period would else use up all attempts of a long stage.
    """
    if previous.state != "running" or previous.stage not in _GETS_ON:
        return False
    left = (path.stat() for path in folder.glob(_GETS_ON[previous.stage]))
    return any(found.st_size and found.st_mtime > previous.start for found in left)


def _given_up(previous: StageStatus, command: StageCommand) -> StageStatus:
    """The final status of a stage whose attempts are used up without one of them having said so."""
    silent = {"class": "Killed", "traceback_tail": ["the last attempt ended without a word (kill -9?)"]}
    return replace(
        previous,
        state="failed",
        attempt=command.max_attempts,
        end=previous.end or previous.heartbeat,
        exit_code=previous.exit_code or EXIT_FAILED,
        error=previous.error or silent,
    )


def _ended(status: StageStatus, outcome: Outcome, command: StageCommand) -> StageStatus:
    states: dict[int, State] = {
        EXIT_DONE: "done",
        EXIT_BAD_INPUT: "failed",
        EXIT_PARENT_MISSING: "pending",
        EXIT_INTERRUPTED: "interrupted",
    }
    used_up = status.attempt >= command.max_attempts
    # An attempt that found no parent has not tried anything: its number is given back.
    attempt = status.attempt - (outcome.exit_code == EXIT_PARENT_MISSING)
    now = time.time()
    return replace(
        status,
        state=states.get(outcome.exit_code, "failed" if used_up else "pending"),
        attempt=attempt,
        heartbeat=now,
        end=now,
        exit_code=outcome.exit_code,
        error=outcome.error,
        artefacts=outcome.artefacts,
    )


def say(folder: Path, stage: str, what: str) -> None:
    """A line on stderr about a stage."""
    sys.stderr.write(f"{folder}: {stage}: {what}\n")
