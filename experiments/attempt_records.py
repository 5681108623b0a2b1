"""``attempts.jsonl`` of a cell's folder: one line for each attempt at a stage, with what it has cost.

The holder of the stage's claim appends the line when its attempt ends. One that was killed wrote nothing:
whoever holds the claim next writes its line first. The file is for accounts and forecasts; no stage
depends on it, so what cannot be written is said and no more.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.atomic import explained
from experiments.claim import Claim
from experiments.code_version import code_version
from experiments.cost_meter import Cost
from experiments.stage_command import StageCommand, read_command

if TYPE_CHECKING:  # whoever forgets a status records what it says first
    from experiments.stage_status import StageStatus

_SCHEMA = 1
_OUTCOMES = {"done": "done", "interrupted": "interrupted"}
_TEXTS = ("stage", "stage_hash", "outcome")
_NUMBERS = ("attempt", "wall_s", "cpus", "gpus", "energy_j")
_MAY_BE_NULL = frozenset({"wall_s", "cpus", "gpus", "energy_j"})  # of an attempt that was lost


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The attempts at all stages of a folder, in the order of their ends.

    A line that is torn or no record is passed over. Of a file that cannot be read nothing is known, which
    is said once.
    """
    path = folder / "attempts.jsonl"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _say_once(f"warning: {path} cannot be read ({error.strerror}); what it tells of costs is not counted")
        return []
    found = []
    for line in content.split(b"\n")[:-1]:  # what follows the last newline is not whole
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and record.get("schema") == _SCHEMA and _is_sound(record):
                found.append(record)
    return found


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Whether a line has what forecasts and sums are made of, in the right types."""
    texts = all(isinstance(record.get(name), str) for name in _TEXTS)
    return texts and all(name in record and _is_amount(name, record[name]) for name in _NUMBERS)


def _is_amount(name: str, value: Any) -> bool:
    if value is None:
        return name in _MAY_BE_NULL
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


@functools.cache
def _say_once(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def append_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Appends one line and returns when it is on the disk; a torn line before it is closed first.

    Raises:
        OSError: with a remedy in its message.
        ValueError: the record holds NaN or an infinity, which JSON has no words for.
    """
    path = folder / "attempts.jsonl"
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = (
                    b"\n" + line
                )  # or another writes just now: then an empty line is left, which says nothing
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise explained(error, f"append to {path}") from error


def record_attempt(claim: Claim, status: StageStatus, command: StageCommand, cost: Cost) -> None:
    """Records an attempt of this process, after its last status; does not raise.

    Args:
        claim: ours.
        status: what became of the attempt. One that found its parent missing has tried nothing, and
            nothing is recorded of it.
        command: what was run.
        cost: what was measured.
    """
    _append_or_say(
        claim,
        {
            **_head(status, _OUTCOMES.get(status.state, "failed"), command),
            **asdict(cost),
            "host": claim.owner.host,
            "slurm_job": claim.owner.slurm_job,
            "slurm_restart": claim.owner.slurm_restart,
            "code": code_version(),
        },
    )


def record_lost(claim: Claim, status: StageStatus | None) -> None:
    """Records the attempt of a process that died without a word; does not raise.

    Its cores and GPUs are those that the stage's command names now.

    Args:
        claim: ours, of the stage that the other process had.
        status: the last that was written of the stage; nothing is recorded unless it says ``running``.
    """
    if status is None or status.state != "running":
        return
    command = None
    with contextlib.suppress(OSError, ValueError):
        command = read_command(claim.folder, claim.stage)
    dead = claim.held_by if claim.held_by and claim.held_by.token == status.token else None
    record = _head(status, "lost", command)
    wall = round(max(0.0, status.heartbeat - status.start), 3)
    unknown = dict.fromkeys(asdict(Cost(0.0, 0.0)))
    record |= unknown | {
        "end": status.heartbeat,
        "wall_s": wall,
        "gpu_s": None if record["gpus"] is None else round(wall * record["gpus"], 3),
        "host": status.host,
        "slurm_job": dead.slurm_job if dead else None,
        "slurm_restart": dead.slurm_restart if dead else None,
        "code": None,
    }
    # who wrote this line may have died before it replaced the status
    if not any(_names_same(record, earlier) for earlier in read_records(claim.folder)):
        _append_or_say(claim, record)


def _head(status: StageStatus, outcome: str, command: StageCommand | None) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "stage": status.stage,
        "stage_hash": status.stage_hash,
        "attempt": status.attempt,
        "outcome": outcome,
        "exit_code": status.exit_code,
        "start": status.start,
        "end": status.end,
        "cpus": command.cpus * command.nodes if command else None,
        "gpus": command.gpus * command.nodes if command else None,
    }


def _names_same(record: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    return all(record[key] == earlier.get(key) for key in ("stage", "start", "host"))


def _append_or_say(claim: Claim, record: Mapping[str, Any]) -> None:
    try:
        append_record(claim.folder, record)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{claim.folder}: {claim.stage}: what this attempt has cost is not kept: {error}\n")
