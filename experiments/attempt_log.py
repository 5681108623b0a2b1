"""``logs/<stage>.log``: everything that the attempts at a stage have printed, one after another."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_TAIL_BYTES = 16_384


class AttemptLog:
    """One attempt's part of the log.

    Args:
        path: the log; its folder is made if need be.
        header: the line that the part begins with.
    """

    def __init__(self, path: Path, header: str) -> None:
        self.path, self._header, self._begin = path, header, 0

    @contextlib.contextmanager
    def redirect(self) -> Iterator[None]:
        """Sends standard output and error of this process and its children to the end of the log."""
        self.path.parent.mkdir(exist_ok=True)
        _flush()
        with contextlib.ExitStack() as undo, open(self.path, "ab", buffering=0) as log:
            self._begin = log.seek(0, os.SEEK_END)
            log.write(f"{self._header}\n".encode())
            for target in (1, 2):
                saved = os.dup(target)
                undo.callback(os.close, saved)
                undo.callback(os.dup2, saved, target)
                os.dup2(log.fileno(), target)
            undo.callback(_flush)
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)  # a killed process loses what it has not flushed
            yield

    def tail(self, n_lines: int) -> list[str]:
        """The last lines of this attempt, without its header."""
        _flush()
        with open(self.path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._begin + len(self._header.encode()) + 1, size - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").rstrip("\n").split("\n")[-n_lines:]


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
