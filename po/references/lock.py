"""One process at a time fills a reference folder.

The kernel's lock on a file in the folder: it ends with the process that holds it, however that ends. Claims
(docs/claims.md) do without such locks because they must be right on every file system. This one only saves
work: values are named by their content, and each file appears whole, so that two processes that both compute
leave what one would have left. Where a file system has no locks the work is done without.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = "lock"
_POLL_S = 0.2
_TELL_S = 600  # between lines of one that waits
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within, no other process is. Waits for one that is, and says so every ten minutes.

    Args:
        folder: exists.

    Raises:
        OSError: the lock's file cannot be opened.
    """
    with (folder / _NAME).open("a+b", buffering=0) as file:
        try:
            _wait(file.fileno(), folder)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            sys.stderr.write(
                f"{folder}: no locks on this file system ({error.strerror}); values may be computed twice\n"
            )
        else:
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M")
            file.write(f"pid {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
        yield  # closing the file gives the lock back; its name stays, or two files could be locked


def _wait(handle: int, folder: Path) -> None:
    start, told = time.monotonic(), 0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - start
            if waited >= told * _TELL_S:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                so_far = f" ({waited / 60:.0f} min so far)" if told else ""
                sys.stderr.write(f"{folder}: {owner} computes these values; waiting for it{so_far}\n")
                told = int(waited // _TELL_S) + 1
            time.sleep(_POLL_S)
