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

What this cannot exclude is a claim taken from a process that lives: by force, or because SLURM has requeued
its job. Its heartbeat thread and ``still_ours`` tell that process, which must then publish nothing.
docs/claims.md says who may take over from whom.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from experiments.atomic import explained, write_durably
from experiments.claim_file import Found, is_dead, is_stale, link, read_claim
from experiments.owner import Owner, end_earlier_copy, is_earlier_copy, this_process
from po.training.fence import CLAIM_FILE, CLAIM_TOKEN

HEARTBEAT_S = 60.0
EXIT_HELD = 75
EXIT_LOST = 76
_MAX_ROUNDS = 8  # each round that fails means that another contender got on
_STAGE = re.compile(r"[a-z][a-z0-9_-]*")


class ClaimHeldError(RuntimeError):
    """Another process holds the stage."""


@dataclass(frozen=True, slots=True)
class ClaimState:
    """What can be said of a claim without taking it; ``owner`` is None when free or unreadable."""

    kind: Literal["free", "held", "stale"]
    owner: Owner | None = None


def claim_state(folder: Path, stage: str) -> ClaimState:
    """Whether a stage is free, held, or free to be taken over by this process.

    Args:
        folder: the cell's folder.
        stage: name of the stage, as in ``claim.<stage>``.
    """
    found = read_claim(_claim_path(folder, stage))
    if found is None:
        return ClaimState("free")
    return ClaimState("stale" if is_stale(found, folder) else "held", found.owner)


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
        return self._ours() is not None

    @contextlib.contextmanager
    def in_environment(self) -> Iterator[None]:
        """Within, ``po.training.fence`` of this process and of those that it starts asks for this claim."""
        ours = {CLAIM_FILE: str(self._path.absolute()), CLAIM_TOKEN: self.owner.token}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def stop_heartbeat(self) -> None:
        """Ends the heartbeat, so that ``on_beat`` is not running and will not run again."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def release(self) -> None:
        """Gives the claim back. Does nothing to a claim that is another's, or gone with its folder."""
        self.stop_heartbeat()
        try:
            found = self._ours()
            if found is not None:
                with contextlib.suppress(FileNotFoundError):  # taken over at this very moment
                    self._remove(found)
        finally:
            self._facts.unlink(missing_ok=True)

    def _ours(self) -> Found | None:
        """The claim as read, if it is ours.

        Its content does not suffice: a client of NFS may open, for a while, what had the name before. That
        file has lost a name, and the count of names is asked for anew whenever a file is opened.
        """
        found = read_claim(self._path)
        return found if found is not None and found.token == self.owner.token and found.n_links > 1 else None

    def _compete(self) -> bool:
        ours = False
        try:
            for _ in range(_MAX_ROUNDS):
                found = read_claim(self._path)
                if found is not None:
                    self.held_by = found.owner
                    if not self._may_succeed(found):
                        return False
                if not self._facts.exists():
                    write_durably(self._facts, self.owner.to_json())
                if found is not None:
                    self._remove(found)
                elif link(self._facts, self._path):
                    ours = True
                    self._sweep()
                    return True
            return False
        finally:
            if not ours:
                with contextlib.suppress(OSError):  # a left-over is swept by the next owner
                    self._facts.unlink(missing_ok=True)

    def _may_succeed(self, found: Found) -> bool:
        """Whether the owner is gone; our own SLURM job before it was requeued is made to go."""
        if not is_stale(found, self.folder, steal=self._steal):
            return False
        return found.owner is None or not is_earlier_copy(found.owner) or end_earlier_copy(found.owner)

    def _remove(self, old: Found) -> None:
        """Removes the claim ``old``, unless another contender that lives is about to."""
        rights: list[Path] = []
        for n in itertools.count(1):
            right = self._path.with_name(f"{self._path.name}.{old.token}.successor.{n}")
            if link(self._facts, right):
                rights.append(right)
                break
            holder = read_claim(right)
            if holder is not None and not self._may_succeed(holder):
                return
            rights.append(right)
        try:
            now = read_claim(self._path)
            if now is not None and now.token == old.token:
                self._path.unlink()
                self._path.with_name(f"{self._path.name}.{old.token}").unlink(missing_ok=True)
        except OSError:
            rights[-1].unlink(missing_ok=True)  # ours: whoever lives and keeps it bars the others
            raise
        # Only now, so that whoever wins one of these again looks at the claim and sees that it is void.
        for right in rights:
            right.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Removes what contenders that died have left. Only the owner does, so no right in use is hit."""
        for path in self.folder.glob(f"{self._path.name}.*"):
            found = read_claim(path)
            if found is not None and found.token != self.owner.token and is_dead(found, self.folder):
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
