"""One file of a claim: what it says, how it gets its name, and whether whoever made it is gone."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from experiments.owner import Owner, has_rebooted, is_alive, is_earlier_copy, parse_owner
from experiments.slurm_queue import is_gone

_HALF_WRITTEN_S = 10.0  # a claim is complete before it has its name, so an incomplete one is damage
_SILENT_BEATS = 10  # a file server that is away for minutes, or a process that swaps, is not dead


@dataclass(frozen=True, slots=True)
class Found:
    """A claim file as read.

    Attributes:
        token: stands for the file even where no owner can be read from it.
        owner: None when unreadable.
        mtime: of the last heartbeat: seconds, of the file server's clock.
        n_links: names that the file has.
    """

    token: str
    owner: Owner | None
    mtime: float
    n_links: int


def read_claim(path: Path) -> Found | None:
    """The claim file, or None when there is none.

    Raises:
        OSError: it is there, or may be, and cannot be read.
    """
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            owner = parse_owner(file.read())
    except FileNotFoundError:
        return None
    token = owner.token if owner else f"broken-{about.st_ino}"
    return Found(token, owner, about.st_mtime, about.st_nlink)


def link(facts: Path, name: Path) -> bool:
    """Makes ``name`` a link to ``facts`` if it does not exist; whether this very call did."""
    n_links = os.stat(facts).st_nlink
    # The count decides, not the answer: NFS may repeat a request and report the name that it made as taken.
    with contextlib.suppress(FileExistsError):
        os.link(facts, name)
    return os.stat(facts).st_nlink > n_links


def is_stale(found: Found, folder: Path, *, steal: bool = False) -> bool:
    """Whether the claim may be taken over: its owner is dead, or is this SLURM job before it was requeued.

    Args:
        found: the claim.
        folder: that it lies in.
        steal: a person says that an owner is gone that cannot be seen from here.
    """
    earlier = found.owner is not None and is_earlier_copy(found.owner)
    return earlier or is_dead(found, folder, steal=steal)


def is_dead(found: Found, folder: Path, *, steal: bool = False) -> bool:
    """Whether no living process has made the file; arguments as of ``is_stale``."""
    if found.owner is None:
        return _age_s(found, folder) > _HALF_WRITTEN_S
    alive = is_alive(found.owner)
    if alive is not None:
        return not alive
    if steal or has_rebooted(found.owner) or _has_left_queue(found.owner):
        # Each of these may be said of a process that lives, but that one would have been heard of.
        return _age_s(found, folder) > _SILENT_BEATS * found.owner.heartbeat_s
    return False


def _has_left_queue(owner: Owner) -> bool:
    return owner.slurm_job is not None and is_gone(owner.slurm_job)


def _age_s(found: Found, folder: Path) -> float:
    """Seconds since the last heartbeat, by the clock that stamped it: the file server's."""
    probe = folder / ".clock.tmp"
    try:
        with open(probe, "w") as file:
            os.utime(file.fileno())
            now = os.fstat(file.fileno()).st_mtime
        probe.unlink(missing_ok=True)
    except OSError:
        return 0.0  # where nothing can be written nothing can be taken over either
    return now - found.mtime
