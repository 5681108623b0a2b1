"""How far the resident memory of this process grows."""

from collections.abc import Callable
from typing import Literal

from experiments.memory import forget_peak, resident


def growth_from_now() -> Callable[[], int]:
    """Begins anew with the peak.

    Returns:
        Tells the bytes by which the peak since then exceeds what is resident now.

    Raises:
        RuntimeError: this system does not tell them.
    """
    if not forget_peak():
        raise RuntimeError("/proc/self/clear_refs cannot be written: a peak of memory is not told here")
    before = _told("VmRSS")
    return lambda: _told("VmHWM") - before


def _told(field: Literal["VmRSS", "VmHWM"]) -> int:
    found = resident(field)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return found
