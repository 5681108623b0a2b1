"""The allocator of a process, switched while it runs: freed memory is kept, or goes back by glibc's rules.

By itself glibc serves blocks of 32 MiB and more with fresh pages each time, and trims its heap above 64 MiB:
there its own adjusting ends, after the first large blocks were freed. `keep_freed_memory` is one of our
speed-ups, so an opponent as shipped has to do without it.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.memory import (
    M_MMAP_MAX,
    M_MMAP_THRESHOLD,
    M_TOP_PAD,
    M_TRIM_THRESHOLD,
    keep_freed_memory,
)

_MIB = 2**20


@contextmanager
def as_glibc_has_it() -> Iterator[None]:
    """Within, freed memory goes back to the system by glibc's rules; behind, it is kept again."""
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    settings = {M_MMAP_THRESHOLD: 32 * _MIB, M_TRIM_THRESHOLD: 64 * _MIB, M_TOP_PAD: 0, M_MMAP_MAX: 65536}
    for name, value in settings.items():
        if library.mallopt(name, value) != 1:
            raise OSError(f"mallopt refused {name} = {value}")
    try:
        yield
    finally:
        keep_freed_memory()
