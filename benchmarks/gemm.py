"""The matrix-multiplication peak of this machine, as it is now."""

import time

import torch

SIZES = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192)}
REPEATS = 5


def peak_flops(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """The most FLOP/s that a product of square matrices reaches, over sizes and repetitions."""
    return max(_of_size(size, device, dtype) for size in SIZES[device])


def _of_size(size: int, device: str, dtype: torch.dtype) -> float:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    result = left @ right
    best = float("inf")
    for _ in range(REPEATS):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right, out=result)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def synchronize(device: str) -> None:
    """Waits for a GPU; a CPU has nothing to wait for."""
    if device == "cuda":
        torch.cuda.synchronize()
