"""What the GPUs of this process's node have used, as far as torch and NVML can tell; neither is needed.

NVML counts for whole GPUs: where several processes share one, each is told the sum.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_SAMPLE_S = 1.0
_T = TypeVar("_T")


class GpuCounters:
    """Energy and peak memory of the visible GPUs from now on.

    Args:
        n_gpus: that this node's part of the stage has; with 0 nothing is asked.
    """

    def __init__(self, n_gpus: int) -> None:
        self._nvml, self._handles = _opened(n_gpus)
        self._energy_mj = self._total_energy()
        self._peak = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        _reset_torch_peak()
        if self._handles:
            self._thread = threading.Thread(target=self._sample, name="GPU memory", daemon=True)
            self._thread.start()

    def stop(self) -> tuple[int | None, float | None]:
        """Ends counting.

        Returns:
            Peak memory in bytes, of the GPU that used most: what torch allocated in this process, or else
            what NVML saw in use. And energy in joules, of all the GPUs. None for what is not known.
        """
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        energy = self._energy_j()
        if self._nvml is not None:
            _asked(self._nvml.nvmlShutdown)
        return _torch_peak() or self._peak or None, energy

    def _energy_j(self) -> float | None:
        now = self._total_energy()
        if now is None or self._energy_mj is None or now < self._energy_mj:
            return None  # a counter that ran backwards was reset with its driver
        return (now - self._energy_mj) / 1000

    def _total_energy(self) -> int | None:
        """Millijoules since the driver was loaded; None where one of the GPUs cannot tell."""
        nvml = self._nvml
        if nvml is None or not self._handles:
            return None
        return _asked(lambda: sum(nvml.nvmlDeviceGetTotalEnergyConsumption(each) for each in self._handles))

    def _sample(self) -> None:
        """Children's memory is gone when the attempt ends, so it is looked at meanwhile."""
        nvml = self._nvml
        if nvml is None:
            return
        # signals are for the main thread, which would not wake from a call for one that came here
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
        while True:
            used = _asked(lambda: max(nvml.nvmlDeviceGetMemoryInfo(each).used for each in self._handles))
            self._peak = max(self._peak, used or 0)
            if self._stopped.wait(_SAMPLE_S):
                return


def _opened(n_gpus: int) -> tuple[Any, list[Any]]:
    """NVML, to be shut down, and handles of the GPUs; None and none where it does not work."""
    nvml = _asked(lambda: importlib.import_module("pynvml")) if n_gpus else None
    if nvml is None:
        return None, []
    if _asked(lambda: nvml.nvmlInit() or True) is None:
        return None, []
    return nvml, _asked(lambda: _visible(nvml, n_gpus)) or []


def _visible(nvml: Any, n_gpus: int) -> list[Any]:
    """Handles of the GPUs that CUDA_VISIBLE_DEVICES names; of all, where it is not set and all are ours."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        count = nvml.nvmlDeviceGetCount()
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)] if count == n_gpus else []
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.isdecimal()
        else nvml.nvmlDeviceGetHandleByUUID(name)
        for name in (part.strip() for part in named.split(","))
        if name
    ]


def _torch_peak() -> int | None:
    """Bytes that torch has allocated at most on one GPU; None where this process uses none through torch."""
    cuda = _initialized_cuda()
    if cuda is None:
        return None
    return _asked(lambda: max(cuda.max_memory_allocated(index) for index in range(cuda.device_count())))


def _reset_torch_peak() -> None:
    cuda = _initialized_cuda()
    if cuda is not None:
        _asked(lambda: [cuda.reset_peak_memory_stats(index) for index in range(cuda.device_count())])


def _initialized_cuda() -> Any:
    """torch.cuda where this process uses it already; never the reason that torch is imported."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _asked(call: Callable[[], _T]) -> _T | None:
    """What a driver says; None where it cannot, whatever it raises: no stage fails for its bookkeeping."""
    try:
        return call()
    except Exception:
        return None
