"""Who holds a claim, and whether that process still lives.

A pid alone proves nothing: pids are reused, differ between machines and containers, and stay visible
after death until the parent has looked. Linux only (``/proc``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_TOKEN = re.compile(r"[0-9a-f]{32}")
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The facts that a claim file holds about the process that made it.

    Attributes:
        token: 32 hexadecimal digits, new for every claim.
        boot_id: the kernel's id of this boot; equal on two machines only if they are one.
        pid_namespace: pids of two containers on one machine mean different processes.
        pid_start: start of the process in clock ticks since boot; tells a reused pid apart.
        time: Unix time of the owner's clock, in seconds; to be shown, never to be compared.
        heartbeat_s: how often the owner touches the claim, in seconds.
        slurm_job: ``JOB`` or ``ARRAYJOB_TASK``; null outside SLURM.
        slurm_restart: how often SLURM has requeued that job.
    """

    token: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_start: int
    time: float
    heartbeat_s: float
    slurm_job: str | None
    slurm_restart: int | None

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job}" if self.slurm_job else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        return f"pid {self.pid} on {self.host}{job}, since {since}"

    def to_json(self) -> str:
        """The content of a claim file."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1) + "\n"


def this_process(heartbeat_s: float) -> Owner:
    """The facts of the calling process, under a new token."""
    start = _start_of(os.getpid())
    if start is None:
        raise RuntimeError("/proc does not show this process; claims need Linux with /proc mounted")
    restart = os.environ.get("SLURM_RESTART_COUNT")
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        pid_start=start,
        time=time.time(),
        heartbeat_s=heartbeat_s,
        slurm_job=_slurm_job(),
        slurm_restart=int(restart) if restart and restart.isdigit() else None,
    )


def parse_owner(content: bytes) -> Owner | None:
    """The owner that a claim file names; None when the content is not whole."""
    try:
        found = json.loads(content)
        owner = Owner(**{field.name: found[field.name] for field in fields(Owner)})
        whole = _TOKEN.fullmatch(owner.token) and isinstance(owner.pid, int) and owner.heartbeat_s > 0
    except (ValueError, TypeError, KeyError):
        return None
    return owner if whole else None


def is_alive(owner: Owner) -> bool | None:
    """Whether the owner's process runs; None when that cannot be known from this machine or container."""
    if owner.boot_id != _boot_id() or owner.pid_namespace != _pid_namespace():
        return None
    try:
        return _start_of(owner.pid) == owner.pid_start
    except PermissionError:
        return True  # another user's process, hidden from us but there


def has_rebooted(owner: Owner) -> bool:
    """Whether the owner belongs to an earlier boot of a machine with this machine's name."""
    return owner.host == socket.gethostname() and owner.boot_id != _boot_id()


def _start_of(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when no such process runs.

    Raises:
        PermissionError: the process exists but ``/proc`` hides it (mount option hidepid).
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        _check_not_hidden(pid)
        return None
    # Fields as in proc(5), from the third on: the second is a name that may hold blanks and parentheses.
    values = content.rpartition(b")")[2].split()
    state, n_threads, start = values[0], int(values[17]), int(values[19])
    # A process with no thread left runs no code, though its parent has not yet asked for its end.
    return None if state in (b"Z", b"X") and n_threads <= 1 else start


def _check_not_hidden(pid: int) -> None:
    """Raises PermissionError when a process that ``/proc`` does not show exists all the same."""
    with contextlib.suppress(ProcessLookupError, OverflowError):
        os.kill(pid, 0)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
