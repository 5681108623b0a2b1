"""How a stage process is stopped from outside: by a signal, or by the death of its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1


class StopRequested(BaseException):
    """SIGTERM or SIGINT has come. Not an Exception, so that no stage takes it for a fault of its own."""


class StopSignals:
    """SIGTERM and SIGINT become ``StopRequested``, but only where the work may be broken off.

    Elsewhere (while a claim is taken, a status written) the signal is kept for later. A stage that
    installs handlers of its own replaces these until its end. Main thread only.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._may_raise = False
        self._replaced: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup; not ours to undo
                self._replaced[number] = signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # as experiments.forking has left it
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Within, a signal raises ``StopRequested``; at once if it came before."""
        self._may_raise = True
        try:
            if self.received is not None:
                raise StopRequested(self.received.name)
            yield
        finally:
            self._may_raise = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._may_raise:
            self._may_raise = False  # a second signal must not break off the cleaning up
            raise StopRequested(self.received.name)


def end_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when the thread that started it ends.

    Args:
        parent_pid: the process that started this one, as that process knows it. Asking for one's own
            parent would take whoever inherits orphans for it, if the parent has died already.

    Raises:
        SystemExit: the parent is dead already.
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit(f"pid {parent_pid}, which started this stage, is gone; nothing was started")
