"""Faults that a user can repair: told in one line, and by an exit code to whoever started the process."""

import sys
from collections.abc import Callable

BAD_INPUT = 65  # exit code: bad data or settings; trying again changes nothing


class InputFault(ValueError):
    """Data or settings that cannot be trained with; the message says where, what, and what to do."""


def told(work: Callable[[], int]) -> int:
    """Runs a command's work; an ``InputFault`` becomes one line on stderr and exit code 65.

    Args:
        work: returns the exit code. What else it raises is a fault of the program and keeps its traceback.
    """
    try:
        return work()
    except InputFault as fault:
        sys.stderr.write(f"error: {fault}\n")
        return BAD_INPUT
