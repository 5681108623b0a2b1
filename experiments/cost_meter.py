"""What an attempt at a stage costs: time, memory, energy and tokens, measured by its own process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.atomic import read_json
from experiments.gpu_counters import GpuCounters
from experiments.memory import forget_peak, resident
from experiments.stage_command import StageCommand


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one attempt; None is what could not be measured.

    Attributes:
        wall_s: seconds.
        gpu_s: seconds times GPUs of all nodes.
        tokens: that were trained on, or generated.
        peak_memory_bytes: main memory of the largest process on this node.
        peak_gpu_memory_bytes: of the GPU that used most.
        energy_j: of this stage's GPUs, in joules; None for several nodes.
    """

    wall_s: float
    gpu_s: float
    tokens: int | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    energy_j: float | None = None


class CostMeter:
    """Measures from now on.

    Args:
        folder: the cell's folder.
        stage: name of the stage.
        command: says how many GPUs and nodes it has.
    """

    def __init__(self, folder: Path, stage: str, command: StageCommand) -> None:
        self._command = command
        self._tokens = TokenCount(folder, stage)
        self._gpus = GpuCounters(command.gpus)
        self._may_read_peak = forget_peak()
        self._children = _maxrss(resource.RUSAGE_CHILDREN)
        self._start = time.monotonic()

    def stop(self) -> Cost:
        """Ends measuring; to be called once."""
        wall = time.monotonic() - self._start
        peak_gpu, energy = self._gpus.stop()
        return Cost(
            wall_s=round(wall, 3),
            gpu_s=round(wall * self._command.gpus * self._command.nodes, 3),
            tokens=self._tokens.since(),
            peak_memory_bytes=self._peak_memory(),
            peak_gpu_memory_bytes=peak_gpu,
            energy_j=energy if self._command.nodes == 1 else None,
        )

    def _peak_memory(self) -> int:
        """Bytes; of children the largest that ended, and no child counts that an earlier stage has had."""
        own = (resident("VmHWM") if self._may_read_peak else None) or _maxrss(resource.RUSAGE_SELF)
        children = _maxrss(resource.RUSAGE_CHILDREN)
        return max(own, children if children > self._children else 0)


class TokenCount:
    """Tokens that a stage goes through from now on, from the files that it writes.

    Args:
        folder: the cell's folder.
        stage: only ``train`` and ``generate`` count tokens.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self._folder, self._stage = folder, stage
        self._before = self._documents()

    def since(self) -> int | None:
        """How many; None where the stage wrote nothing of it."""
        changed = {
            path: document
            for path, document in self._documents().items()
            if document != self._before.get(path)
        }
        counts = [self._count(path, document) for path, document in changed.items()]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _documents(self) -> dict[Path, dict[str, Any]]:
        pattern = {"train": "progress.train.json", "generate": "generate/*/generation.json"}.get(self._stage)
        found: dict[Path, dict[str, Any]] = {}
        for path in self._folder.glob(pattern) if pattern else ():
            with contextlib.suppress(OSError, ValueError):  # what is damaged counts nothing
                found[path] = read_json(path) | {"written": path.stat().st_mtime_ns}
        return found

    def _count(self, path: Path, document: Mapping[str, Any]) -> int | None:
        tokens = document.get("tokens")
        if not isinstance(tokens, int):
            return None
        if self._stage == "train":
            first = document.get("first_tokens")
            return tokens - first if isinstance(first, int) else None
        # Outputs of earlier attempts are kept and counted in the sum, unless all was made anew.
        before = self._before.get(path, {}).get("tokens")
        return tokens - before if isinstance(before, int) and before <= tokens else tokens


def _maxrss(who: int) -> int:
    """Bytes."""
    return resource.getrusage(who).ru_maxrss * 1024
