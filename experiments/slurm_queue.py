"""What SLURM's queue says of jobs. A hint: ``squeue`` may be missing, slow, or speak of another cluster.

So whoever asks needs a second reason before it acts on "not in the queue", and gets None, or "not gone",
wherever there was no clear answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO

_TIMEOUT_S = 10.0  # of one question, however many calls it takes
_FRESH_S = 5.0  # for those who show or plan
_GONE_FRESH_S = 30.0  # for claims: those of an array of 15,000 elements cost one call
_IDS_PER_CALL = 2000
_FORGOTTEN = "Invalid job id specified"  # SLURM's words; it fails with them where one id was asked for
_JOB = re.compile(r"[0-9]+(_[0-9]+)?")
_ROW = re.compile(r"(([0-9]+)[0-9_+]*)\|([A-Z_]+)\|(.*)")
# The states that end a job; one that is not listed counts as living.
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT".split()
)


@dataclass(frozen=True, slots=True)
class QueuedElement:
    """A job, or one element of an array, that has not ended.

    Attributes:
        job: ``JOB`` or ``ARRAYJOB_INDEX``.
        state: SLURM's word, as ``PENDING`` or ``RUNNING``.
        reason: why it waits, as ``DependencyNeverSatisfied``; ``None``, the word, where it does not.
        comment: that it was submitted with; ``(null)`` without one, None where squeue does not tell.
    """

    job: str
    state: str
    reason: str
    comment: str | None = None


_Elements = dict[str, QueuedElement]  # by id


@dataclass(slots=True)
class _Memory:
    """What this process has asked already; times are those of the monotonic clock, in seconds."""

    answers: dict[str, tuple[float, _Elements]] = field(default_factory=dict)  # by id of a job or whole array
    failed: float | None = None


_memory = _Memory()


def living(job_ids: Iterable[str]) -> dict[str, QueuedElement] | None:
    """What of some jobs is in the queue, or was a few seconds ago.

    Args:
        job_ids: ``JOB`` (an array stands for all its elements) or ``ARRAYJOB_INDEX``.

    Returns:
        By id, what has not ended; jobs that SLURM has forgotten are absent. None when ``squeue`` is missing,
        fails or takes more than ten seconds.

    Raises:
        ValueError: an id is none of the two.
    """
    wanted = sorted(set(job_ids))
    for job in wanted:
        if not _JOB.fullmatch(job):
            raise ValueError(f"job id {job!r}: JOB or ARRAYJOB_INDEX is needed, as in '123' or '123_4'")
    found = _elements([_whole(job) for job in wanted], _FRESH_S)
    if found is None:
        return None
    parts: _Elements = {}
    for job in wanted:
        elements = found[_whole(job)]
        parts |= elements if job == _whole(job) else {k: v for k, v in elements.items() if k == job}
    return parts


def is_gone(job: str) -> bool:
    """Whether the queue of the last half minute was without this job or array element.

    Args:
        job: ``JOB`` or ``ARRAYJOB_INDEX``.

    Returns:
        False also where that cannot be known.
    """
    if not _JOB.fullmatch(job):
        return False
    found = _elements([_whole(job)], _GONE_FRESH_S)
    return found is not None and job not in found[_whole(job)]


def jobs_with_comment(prefix: str) -> dict[str, str] | None:
    """This user's queued jobs whose comment begins with ``prefix``.

    Returns:
        Comment by id; an array has one entry, under its own id. None when ``squeue`` cannot be asked.
    """
    text = _squeue(["--me", "-o", "%F|%T|%k"], time.monotonic() + _TIMEOUT_S)
    if text is None:
        return None
    rows = [
        _ROW.fullmatch(line) for line in text.splitlines()
    ]  # others go on with a comment of several lines
    return {row[2]: row[4] for row in rows if row and row[3] not in _ENDED and row[4].startswith(prefix)}


def _whole(job: str) -> str:
    """The job that an array element belongs to."""
    return job.partition("_")[0]


def _elements(jobs: Sequence[str], fresh_s: float) -> dict[str, _Elements] | None:
    """Elements of jobs or whole arrays; what was asked within ``fresh_s`` seconds is not asked again."""
    now = time.monotonic()
    known = {job for job in jobs if job in _memory.answers and now - _memory.answers[job][0] < fresh_s}
    old = sorted(set(jobs) - known)
    if old and _memory.failed is not None and now - _memory.failed < fresh_s:
        return None  # to wait again and again for a server that is away would stop everything
    for first in range(0, len(old), _IDS_PER_CALL):
        asked = time.monotonic()
        found = _ask(old[first : first + _IDS_PER_CALL], now + _TIMEOUT_S)
        _memory.failed = time.monotonic() if found is None else None
        if found is None:
            return None
        _memory.answers |= {job: (asked, elements) for job, elements in found.items()}
    return {job: _memory.answers[job][1] for job in jobs}


def _ask(jobs: Sequence[str], end: float) -> dict[str, _Elements] | None:
    """Elements of jobs or whole arrays from one call of ``squeue``; None unless all of it was understood."""
    # -t all: which states are shown without it, and which names may be given, differ between versions
    text = _squeue(["-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r|%k"], end)
    if text == _FORGOTTEN and len(jobs) > 1:  # which of them, it does not say
        singly = [_ask([job], end) for job in jobs]
        if any(part is None for part in singly):
            return None
        return {job: elements for part in singly if part for job, elements in part.items()}
    if text is None:
        return None
    found: dict[str, _Elements] = {job: {} for job in jobs}
    for line in [] if text == _FORGOTTEN else text.splitlines():
        row = _ROW.fullmatch(line)
        if row is None or row[2] not in found:
            return None
        if row[3] not in _ENDED:
            reason, told, comment = row[4].partition("|")
            found[row[2]][row[1]] = QueuedElement(row[1], row[3], reason, comment if told else None)
    return found


def _squeue(options: Sequence[str], end: float) -> str | None:
    """What ``squeue -h`` prints, or ``_FORGOTTEN``; None when it fails or is late."""
    # SQUEUE_STATES, SQUEUE_PARTITION and the like would hide jobs
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        try:
            process = subprocess.Popen(
                ["squeue", "-h", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaint,
                start_new_session=True,  # where squeue is a script, what it has started is ended with it
            )
        except OSError:
            return None
        try:
            code = process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            return _FORGOTTEN if _FORGOTTEN in _content(complaint) else None
        return _content(output)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
