"""What there is to say of one stage that runs, failed or was broken off; read only when it is shown."""

import time
from collections.abc import Mapping
from typing import Any

from experiments.atomic import read_json
from experiments.claim import claim_state
from experiments.overview import Row
from experiments.recorded_plan import RecordedPlan
from experiments.stage_command import read_command

_PROGRESS_SLACK_S = 2.0  # between the clock of the process and the file server's


def details(row: Row, plan: RecordedPlan) -> dict[str, Any]:
    """The facts of a stage by its state; keys without a value are left out.

    Returns:
        For every stage ``state``, ``stage``, ``label``, ``folder``; where known ``step``, ``total``,
        ``elapsed_s``, ``host``, ``slurm_job``, ``attempt``, ``max_attempts``, ``error``, ``last_line``,
        ``log``, ``heartbeat`` (Unix time), ``blocked_by``, ``reason``, ``fault``.
    """
    found: dict[str, Any] = {
        "state": row.state,
        "stage": row.stage,
        "label": row.label,
        "folder": plan.jobs[row.index]["folder"],
    }
    if row.element is not None:
        found |= {"slurm_job": row.element.job, "reason": row.element.reason}
    if row.state == "running":
        found |= _owner(row) | progress(row) | {"elapsed_s": elapsed_s(row, time.time())}
    elif row.state == "interrupted":
        found |= progress(row)
    elif row.state == "lost" and row.status is not None:
        found |= {"host": row.status.host, "heartbeat": row.status.heartbeat, **progress(row)}
    elif row.state == "blocked" and row.cause is not None:
        found["blocked_by"] = plan.jobs[row.cause]["label"]
    if row.state in ("failed", "pending", "lost"):
        found |= _attempts(row) | _error(row)
    return {key: value for key, value in (found | {"fault": row.fault}).items() if value not in (None, "")}


def elapsed_s(row: Row, now: float) -> float | None:
    """Seconds since the attempt that runs has begun."""
    if row.status is None or row.status.state != "running":
        return None
    return max(0.0, now - row.status.start)


def left_by_steps_s(row: Row, now: float) -> float | None:
    """Seconds until a training that runs is at its last step, by what its steps have taken until now."""
    found, elapsed = progress(row), elapsed_s(row, now)
    done = found.get("step", 0) - found.get("first_step", 0)
    if elapsed is None or "first_step" not in found or done <= 0:
        return None
    return elapsed / done * max(0, found["total"] - found["step"])


def progress(row: Row) -> dict[str, int]:
    """``step``, ``total`` and, of newer files, ``first_step`` of a stage; empty where it says nothing."""
    path = row.folder / f"progress.{row.stage}.json"
    try:
        found, written = read_json(path), path.stat().st_mtime
        names = [key for key in found if key in ("step", "total", "first_step")]
        steps = {name: int(found[name]) for name in names}
    except (OSError, ValueError, TypeError):
        return {}  # not begun, or just being cleared away
    begun = row.status.start if row.status else 0.0
    old = row.state == "running" and written < begun - _PROGRESS_SLACK_S  # of an earlier attempt
    return {} if old or not {"step", "total"} <= steps.keys() else steps


def _owner(row: Row) -> dict[str, Any]:
    owner = claim_state(row.folder, row.stage).owner
    if owner is None:
        return {"host": row.status.host} if row.status else {}
    job = {"slurm_job": owner.slurm_job} if owner.slurm_job else {}
    return {"host": owner.host, "pid": owner.pid, **job}


def _attempts(row: Row) -> dict[str, Any]:
    if row.status is None:
        return {}
    try:
        return {
            "attempt": row.status.attempt,
            "max_attempts": read_command(row.folder, row.stage).max_attempts,
        }
    except (OSError, ValueError):
        return {"attempt": row.status.attempt}


def _error(row: Row) -> dict[str, Any]:
    error: Mapping[str, Any] = (row.status.error if row.status else None) or {}
    if not error:
        return {}
    tail = [line for line in error.get("traceback_tail") or () if line.strip()]
    log = row.folder / "logs" / f"{row.stage}.log"
    if not log.is_file() and row.element is not None and row.element.log.is_file():
        log = row.element.log
    last = tail[-1].strip() if tail else ""
    return {"error": error.get("class"), "last_line": last, "log": str(log) if log.is_file() else None}
