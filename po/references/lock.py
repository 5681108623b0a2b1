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
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within, no other process is. Waits for one that is, and says so once.

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
            file.write(f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        yield  # closing the file gives the lock back; its name stays, or two files could be locked


def _wait(handle: int, folder: Path) -> None:
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                sys.stderr.write(f"{folder}: {owner} computes these values; waiting for it\n")
                told = True
            time.sleep(_POLL_S)
