"""A command whose reader has gone away, as in ``... | head``, ends in silence."""

import os
import sys
from collections.abc import Callable

READER_GONE = 1


def piped(work: Callable[[], int]) -> int:
    """Runs a command that prints; where nobody reads on, it ends with exit code 1 and no traceback.

    Args:
        work: prints to stdout, and returns the exit code.
    """
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered would fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return code
