"""Which code this process runs: the commit of its tree, and whether the tree differs from it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import subprocess
import time
from pathlib import Path

_TREE = Path(__file__).resolve().parents[1]
_WAIT_S = 1.0


def begin_reading() -> None:
    """Asks git about this tree, once per process; to be called before the code at work could be edited."""
    _reading()


@functools.cache
def code_version() -> str | None:
    """What ``read_code_version`` says of this tree; what git has not answered by now it has a second for."""
    return _reading().result(_WAIT_S)


def read_code_version(tree: Path, wait_s: float = _WAIT_S) -> str | None:
    """The commit, with ``+dirty:<10 hex digits>`` of the SHA-256 of ``git diff HEAD`` where there is one.

    Args:
        tree: the folder that holds the packages.
        wait_s: seconds after which git is not waited for any more.

    Returns:
        None where there is no git, no repository, or one that does not know this code (an installed copy).
    """
    return _Reading(tree).result(wait_s)


@functools.cache
def _reading() -> _Reading:
    return _Reading(_TREE)


class _Reading:
    """Git at work beside a stage, which need not wait for a slow file system.

    No thread waits for it: one that is busy while a signal comes delays what the main thread hears of it.
    """

    def __init__(self, tree: Path) -> None:
        own = Path(__file__).resolve().relative_to(_TREE)
        self._commit = _Git(tree, "rev-parse", "HEAD")
        self._known = _Git(tree, "ls-files", str(own))
        self._difference = _Git(tree, "diff", "--no-ext-diff", "--no-color", "HEAD")

    def result(self, wait_s: float) -> str | None:
        end = time.monotonic() + wait_s
        commit, known, difference = (
            each.output(end) for each in (self._commit, self._known, self._difference)
        )
        if not commit or not known or difference is None:
            return None
        dirty = f"+dirty:{hashlib.sha256(difference).hexdigest()[:10]}" if difference else ""
        return commit.decode().strip() + dirty


class _Git:
    """A git command, its output kept in memory, where it never waits for a reader."""

    def __init__(self, tree: Path, *arguments: str) -> None:
        # Variables of a hook name another repository; and thousands of jobs must not rewrite one index.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._output = open(os.memfd_create("git"), "rb")
            self._process = subprocess.Popen(
                ["git", "-C", str(tree), *arguments],
                env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the stage
            )

    def output(self, end: float) -> bytes | None:
        """What it printed; None if it failed or has not ended at ``end``, on the monotonic clock."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        with self._output:
            self._output.seek(0)
            return self._output.read() if code == 0 else None
