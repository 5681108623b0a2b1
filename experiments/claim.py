"""One process at a time for one stage of one cell, on local disks and on NFS, without flock.

Files beside each other in the cell's folder:

    claim.<stage>                          who holds the stage; a hard link to the next
    claim.<stage>.<token>                  a contender's facts, written and flushed before anything is linked
    claim.<stage>.<token>.successor.<n>    who alone may remove the claim of <token>; a link to its facts

``link`` makes a name that did not exist, for one of many callers; that is all the protocol rests on. It
never renames or removes ``claim.<stage>`` on the strength of having read it: a slow contender would hit the
claim of a quicker one, which had replaced the dead owner's meanwhile. Instead one contender wins the
right to remove that owner's claim (a name with the owner's token in it, so it can never mean another's)
and looks again before it does. A winner that dies is succeeded in the same way: n = 2, 3, ...

What this cannot exclude is a claim taken by force from a process that lives. Its heartbeat thread and
``still_ours`` tell that process, which must then publish nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from experiments.atomic import explained, write_durably
from experiments.owner import Owner, has_rebooted, is_alive, parse_owner, this_process

HEARTBEAT_S = 60.0
EXIT_HELD = 75
EXIT_LOST = 76
_HALF_WRITTEN_S = 10.0  # a claim is complete before it has its name, so an incomplete one is damage
_SILENT_BEATS = 10
_MAX_ROUNDS = 8  # each round that fails means that another contender got on
_STAGE = re.compile(r"[a-z][a-z0-9_-]*")


class ClaimHeldError(RuntimeError):
    """Another process holds the stage."""


@dataclass(frozen=True, slots=True)
class ClaimState:
    """What can be said of a claim without taking it; ``owner`` is None when free or unreadable."""

    kind: Literal["free", "held", "stale"]
    owner: Owner | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A claim file as read. ``token`` stands for the file even where no owner can be read from it."""

    token: str
    owner: Owner | None
    mtime: float  # seconds, of the file server's clock


def claim_state(folder: Path, stage: str) -> ClaimState:
    """Whether a stage is free, held, or held by a process that is known to be dead.

    Args:
        folder: the cell's folder.
        stage: name of the stage, as in ``claim.<stage>``.
    """
    found = _read(_claim_path(folder, stage))
    if found is None:
        return ClaimState("free")
    return ClaimState("stale" if _is_stale(found, folder) else "held", found.owner)


def exit_lost(claim: Claim) -> None:
    """Ends this process at once with status 76: whatever it wrote from now on would be another's."""
    sys.stderr.write(f"{claim}: taken over by another process; stopping, nothing is published\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_LOST)


class Claim:
    """The right to do one stage in one folder, while a thread shows that this process lives.

    To be made in the process that does the stage, after any fork. As a context manager it raises
    ``ClaimHeldError`` where ``acquire`` would return False.

    Args:
        folder: the cell's folder.
        stage: name of the stage.
        heartbeat_s: seconds between two signs of life.
        steal: take over also from an owner that cannot be seen from here and was silent for ten
            heartbeats. Only for a person who knows that the owner is gone.
        on_lost: called from the heartbeat thread when the claim is another's. Ends the process by default.

    Attributes:
        on_beat: called from the heartbeat thread after each sign of life.
        held_by: after a failed ``acquire``, who has it (None when unreadable).
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        steal: bool = False,
        on_lost: Callable[[Claim], None] = exit_lost,
    ) -> None:
        self.folder, self.stage = folder, stage
        self.owner = this_process(heartbeat_s)
        self.on_beat: Callable[[], None] | None = None
        self.held_by: Owner | None = None
        self._steal, self._on_lost = steal, on_lost
        self._path = _claim_path(folder, stage)
        self._facts = self._path.with_name(f"{self._path.name}.{self.owner.token}")
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __str__(self) -> str:
        return str(self._path)

    def __enter__(self) -> Claim:
        if not self.acquire():
            raise ClaimHeldError(f"{self} is held by {self.held_by or 'an unreadable owner'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> bool:
        """Takes the claim if it is free or its owner is dead.

        Returns:
            Whether it is ours now; if so, the heartbeat has begun.

        Raises:
            OSError: the folder is gone, read-only or full; the message says which.
        """
        try:
            ours = self._compete()
        except OSError as error:
            raise explained(error, f"claim stage {self.stage!r} in {self.folder}") from error
        if ours:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._beat, name=f"heartbeat {self.stage}", daemon=True)
            self._thread.start()
        return ours

    def still_ours(self) -> bool:
        """Reads the claim again. To be asked right before anything is published."""
        found = _read(self._path)
        return found is not None and found.token == self.owner.token

    def stop_heartbeat(self) -> None:
        """Ends the heartbeat, so that ``on_beat`` is not running and will not run again."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def release(self) -> None:
        """Gives the claim back. Does nothing to a claim that is another's, or gone with its folder."""
        self.stop_heartbeat()
        try:
            found = _read(self._path)
            if found is not None and found.token == self.owner.token:
                self._remove(found)
        finally:
            self._facts.unlink(missing_ok=True)

    def _compete(self) -> bool:
        ours = False
        try:
            for _ in range(_MAX_ROUNDS):
                found = _read(self._path)
                if found is not None:
                    self.held_by = found.owner
                    if not _is_stale(found, self.folder, steal=self._steal):
                        return False
                if not self._facts.exists():
                    write_durably(self._facts, self.owner.to_json())
                if found is not None:
                    self._remove(found)
                elif _link(self._facts, self._path):
                    ours = True
                    self._sweep()
                    return True
            return False
        finally:
            if not ours:
                with contextlib.suppress(OSError):  # a left-over is swept by the next owner
                    self._facts.unlink(missing_ok=True)

    def _remove(self, old: _Found) -> None:
        """Removes the claim ``old``, unless another contender that lives is about to."""
        rights: list[Path] = []
        for n in itertools.count(1):
            right = self._path.with_name(f"{self._path.name}.{old.token}.successor.{n}")
            if _link(self._facts, right):
                rights.append(right)
                break
            holder = _read(right)
            if holder is not None and not _is_stale(holder, self.folder, steal=self._steal):
                return
            rights.append(right)
        try:
            now = _read(self._path)
            if now is not None and now.token == old.token:
                self._path.unlink()
        except OSError:
            rights[-1].unlink(missing_ok=True)  # ours: whoever lives and keeps it bars the others
            raise
        # Only now, so that whoever wins one of these again looks at the claim and sees that it is void.
        for right in rights:
            right.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Removes what contenders that died have left. Only the owner does, so no right in use is hit."""
        for path in self.folder.glob(f"{self._path.name}.*"):
            found = _read(path)
            if found is not None and found.token != self.owner.token and _is_stale(found, self.folder):
                path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stopped.wait(self.owner.heartbeat_s):
            try:
                if not self.still_ours():
                    self._on_lost(self)
                    return
                os.utime(self._facts)  # no times given: the file server's clock, not ours
                if self.on_beat is not None:
                    self.on_beat()
            except OSError as error:
                # A file server that is away for a while is no reason to throw hours of work away.
                sys.stderr.write(f"{self}: no heartbeat ({error}); trying again\n")


def _claim_path(folder: Path, stage: str) -> Path:
    if not _STAGE.fullmatch(stage):
        raise ValueError(f"stage {stage!r}: a name of a-z, 0-9, - and _ is needed, as in 'train'")
    return folder / f"claim.{stage}"


def _read(path: Path) -> _Found | None:
    """The claim file, or None when there is none."""
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            owner = parse_owner(file.read())
    except FileNotFoundError:
        return None
    return _Found(owner.token if owner else f"broken-{about.st_ino}", owner, about.st_mtime)


def _link(facts: Path, name: Path) -> bool:
    """Makes ``name`` a link to ``facts`` if it does not exist; whether this very call did."""
    n_links = os.stat(facts).st_nlink
    # The count decides, not the answer: NFS may repeat a request and report the name that it made as taken.
    with contextlib.suppress(FileExistsError):
        os.link(facts, name)
    return os.stat(facts).st_nlink > n_links


def _is_stale(found: _Found, folder: Path, *, steal: bool = False) -> bool:
    """Whether the owner is known to be dead; with ``steal``, whether a person says so and it is silent."""
    if found.owner is None:
        return _age_s(found, folder) > _HALF_WRITTEN_S
    alive = is_alive(found.owner)
    if alive is not None:
        return not alive
    if steal or has_rebooted(found.owner):
        return _age_s(found, folder) > _SILENT_BEATS * found.owner.heartbeat_s
    return False


def _age_s(found: _Found, folder: Path) -> float:
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
