"""State of one stage of one cell: ``status.<stage>.json``, and what it amounts to now.

The file says what the claim's holder wrote last; a process that was killed wrote nothing. So nobody
should act on the file alone: ``effective_state`` holds it against the claim, the hash and the artefacts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from experiments.atomic import read_json, sha256_file, write_json
from experiments.attempt_records import record_lost
from experiments.claim import Claim, claim_state

State = Literal["pending", "running", "done", "failed", "interrupted", "cancelled"]
EffectiveState = Literal["pending", "running", "lost", "interrupted", "done", "stale", "failed", "cancelled"]
_SCHEMA = 1
_TEXTS = ("stage", "stage_hash", "host", "boot_id", "token")
_WHOLE = ("attempt", "pid", "step", "total", "exit_code")
_TIMES = ("start", "heartbeat", "end")
_MAY_BE_NULL = frozenset({"end", "step", "total", "exit_code", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """The content of ``status.<stage>.json``.

    Attributes:
        state: ``pending`` means that an attempt has failed and that others are left.
        stage_hash: hash of the output that the stage was working on.
        attempt: number of the attempt, from 1; an interrupted one keeps its number when it goes on.
        token: of the claim under which this was written.
        start, heartbeat, end: Unix times of the writer's clock, in seconds.
        step, total: how far the stage is, where it says so.
        error: ``class`` and ``traceback_tail``, the last 20 lines.
        artefacts: ``bytes`` and ``sha256`` of every file that the stage left, by path in the folder.
    """

    stage: str
    state: State
    stage_hash: str
    attempt: int
    host: str
    pid: int
    boot_id: str
    token: str
    start: float
    heartbeat: float
    end: float | None = None
    step: int | None = None
    total: int | None = None
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None
    artefacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_status(folder: Path, stage: str) -> StageStatus | None:
    """The status as last written; None when the stage was never begun.

    Raises:
        ValueError: the file is damaged or of another version; the message names it.
    """
    path = _status_path(folder, stage)
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    if found.get("schema") != _SCHEMA:
        raise ValueError(f"{path}: schema = {found.get('schema')!r}; this version reads {_SCHEMA}")
    names = {entry.name for entry in fields(StageStatus)}
    try:
        status = StageStatus(**{name: value for name, value in found.items() if name in names})
    except TypeError as error:
        raise ValueError(f"{path}: {str(error).replace('StageStatus.__init__()', 'the status')}") from error
    if status.state not in get_args(State):
        raise ValueError(f"{path}: state = {status.state!r}; known: {', '.join(get_args(State))}")
    if fault := _wrong_type(status):
        raise ValueError(f"{path}: not a status ({fault}); delete the file and run its stage again")
    return status


def _wrong_type(status: StageStatus) -> str:
    """The first value that is not of its field's type; empty if all are."""
    for name in (*_TEXTS, *_WHOLE, *_TIMES, "error", "artefacts"):
        value = getattr(status, name)
        if not (_is_sound(name, value) or (value is None and name in _MAY_BE_NULL)):
            return f"{name} = {value!r}"
    return ""


def _is_sound(name: str, value: Any) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if name in (*_WHOLE, *_TIMES):
        kinds = int if name in _WHOLE else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and -math.inf < value < math.inf
    if not isinstance(value, dict):
        return False
    return _is_error(value) if name == "error" else all(map(_is_measured, value.values()))


def _is_error(value: Mapping[str, Any]) -> bool:
    tail = value.get("traceback_tail", [])
    lines = isinstance(tail, list) and all(isinstance(line, str) for line in tail)
    return lines and isinstance(value.get("class", ""), str)


def _is_measured(value: Any) -> bool:
    """Whether this is what an artefact has, as ``measure_artefacts`` tells it."""
    return isinstance(value, dict) and type(value.get("bytes")) is int and type(value.get("sha256")) is str


def write_status(folder: Path, status: StageStatus) -> None:
    """Replaces the status of ``status.stage``. Only for the holder of that stage's claim."""
    write_json(_status_path(folder, status.stage), {"schema": _SCHEMA, **asdict(status)})


def reset_status(folder: Path, stage: str) -> None:
    """Forgets what became of a stage, so that it is pending with all its attempts again.

    Raises:
        ClaimHeldError: the stage is running.
    """
    with Claim(folder, stage) as claim:
        with contextlib.suppress(ValueError):  # a damaged status tells of no attempt
            record_lost(claim, read_status(folder, stage))
        _status_path(folder, stage).unlink(missing_ok=True)


def measure_artefacts(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files that a stage left; a folder stands for all the files in it.

    Raises:
        FileNotFoundError: one is not there, or a folder is empty.
    """
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        place = folder / name
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        if not files or not files[0].is_file():
            raise FileNotFoundError(f"{place}: the stage ended well but did not leave this")
        for path in files:
            size = path.stat().st_size
            measured[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": sha256_file(path)}
    return measured


def effective_state(folder: Path, stage: str, stage_hash: str, *, deep: bool = False) -> EffectiveState:
    """What the status amounts to.

    Args:
        folder: the cell's folder.
        stage: name of the stage.
        stage_hash: hash of the output that is wanted.
        deep: compare the digests of the artefacts, not only their sizes.

    Returns:
        ``done`` only if the status says so for this hash and its artefacts are there unchanged; ``stale`` if
        they are not, or it speaks of another hash; ``lost`` if a process was running and is known to be dead.
    """
    status = read_status(folder, stage)
    wanted = status is not None and status.stage_hash == stage_hash
    if status and wanted and status.state == "done" and _artefacts_unchanged(folder, status, deep=deep):
        return "done"
    if claim_state(folder, stage).kind == "held":
        return "running"
    if status is None:
        return "pending"
    if not wanted or status.state == "done":
        return "stale"
    return "lost" if status.state == "running" else status.state


def _artefacts_unchanged(folder: Path, status: StageStatus, *, deep: bool) -> bool:
    return all(
        path.is_file()
        and path.stat().st_size == measured["bytes"]
        and (not deep or sha256_file(path) == measured["sha256"])
        for path, measured in ((folder / name, measured) for name, measured in status.artefacts.items())
    )


def _status_path(folder: Path, stage: str) -> Path:
    return folder / f"status.{stage}.json"
