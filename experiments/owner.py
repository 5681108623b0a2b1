"""Who holds a claim, and whether that process still lives.

A pid alone proves nothing: pids are reused, differ between machines and containers, and stay visible
after death until the parent has looked. Linux only (``/proc``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_TOKEN = re.compile(r"[0-9a-f]{32}")
_SCHEMA = 1
_KILL_WAIT_S = 5.0
_POLL_S = 0.01


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
        slurm_restart: how often SLURM has requeued that job; null at its first start and outside SLURM.
        slurm_cluster: two clusters count their jobs from 1 each.
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
    slurm_cluster: str | None = None

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
        slurm_restart=_slurm_restart(),
        slurm_cluster=os.environ.get("SLURM_CLUSTER_NAME"),
    )


def parse_owner(content: bytes) -> Owner | None:
    """The owner that a claim file names; None when the content is not whole."""
    try:
        found = json.loads(content)
        owner = Owner(**{field.name: found[field.name] for field in fields(Owner) if field.name in found})
        whole = _TOKEN.fullmatch(owner.token) and isinstance(owner.pid, int) and owner.heartbeat_s > 0
        whole = whole and isinstance(owner.slurm_restart, int | None)
        whole = whole and isinstance(owner.slurm_job, str | None)
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


def is_earlier_copy(owner: Owner) -> bool:
    """Whether the owner is this very SLURM job, or array element, as it was before SLURM requeued it.

    That process may live: SLURM requeues what it has lost sight of. It works for nobody all the same.
    """
    job, cluster = _slurm_job(), os.environ.get("SLURM_CLUSTER_NAME")
    if (
        job is None
        or owner.slurm_job != job
        or (owner.slurm_cluster or cluster) != (cluster or owner.slurm_cluster)
    ):
        return False
    return (owner.slurm_restart or 0) < (_slurm_restart() or 0)


def end_earlier_copy(owner: Owner) -> bool:
    """Kills the process of an earlier copy of this SLURM job, where it is to be seen from here and lives.

    Returns:
        Whether it may be succeeded: False if it belongs to another user, so that it cannot be what it says.
    """
    try:
        if is_alive(owner) is not True:
            return True
        if _start_of(owner.pid) != owner.pid_start or owner.pid == os.getpid():
            return False
        os.kill(owner.pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    sys.stderr.write(f"{owner}: this job before it was requeued, still running: killed\n")
    end = time.monotonic() + _KILL_WAIT_S
    while is_alive(owner) and time.monotonic() < end:  # one that the kernel is slow to end runs no more code
        time.sleep(_POLL_S)
    return True


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


def _slurm_restart() -> int | None:
    restart = os.environ.get("SLURM_RESTART_COUNT")
    return int(restart) if restart and restart.isdigit() else None


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
