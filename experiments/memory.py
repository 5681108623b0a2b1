"""Memory that training frees is kept for the next step instead of being given back to the system.

By default glibc gives back every large tensor that is freed and asks for fresh pages at the next step. Where
page faults are dear (virtual machines), that takes longer than the arithmetic; see
`python -m benchmarks.allocator`.
"""

import ctypes

# of malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
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
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
