"""The memory of this process: how much it is, and that what training frees is kept for the next step.

By default glibc gives back every large tensor that is freed and asks for fresh pages at the next step. Where
page faults are dear (virtual machines), that takes longer than the arithmetic; see
`python -m benchmarks.allocator`.
"""

import ctypes
from pathlib import Path
from typing import Literal

# of malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells this process's allocator to keep what is freed.

    Returns:
        Whether it listened: glibc does, others are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, _NEVER), (M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def forget_peak() -> bool:
    """Has the kernel forget this process's peak so far; whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False  # not in every container; the peak is then that of the whole process
    return True


def resident(field: Literal["VmRSS", "VmHWM"]) -> int | None:
    """Resident memory of this process in bytes, now (``VmRSS``) or at its peak (``VmHWM``).

    Returns:
        None where the kernel does not tell it.
    """
    for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
