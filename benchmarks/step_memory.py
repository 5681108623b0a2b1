"""Peak growth of memory in one training step, each measurement in a process of its own.

python -m benchmarks.step_memory SIDE MODEL WORKLOAD            # SIDE: a name of SIDES; prints bytes

Growth is the peak of resident memory during a step less what was resident before it: activations, logits
and gradients. A step on one short pair comes first and leaves libraries loaded; blocks of the allocator are
given back at once (``MALLOC_*`` below), so that what is resident is what is used. The reference's values are
stored on both sides. On CUDA, `benchmarks.step_cuda` reads the allocator's own counter.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.resident import growth_from_now
from benchmarks.table import Row, at_least, plain

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "TQDM_DISABLE": "1"}
LIMIT_S = 900
BATCHES, PLACE = 5, 2  # the middle one of the sorted batches: padding is small on both sides
GOAL = 3.0


def _ours(checkpointing: bool) -> Callable[..., Any]:
    def make(model: Any, reference: Any, batches: Any) -> Any:
        from benchmarks.our_steps import our_side, with_reference

        arguments = {"gradient_checkpointing": checkpointing}
        return our_side("ours", model, with_reference(batches, reference), "dpo", arguments=arguments)

    return make


def _trl(checkpointing: bool) -> Callable[..., Any]:
    def make(model: Any, reference: Any, batches: Any) -> Any:
        from benchmarks.trl_steps import trl_dpo

        return trl_dpo("TRL", model, reference, batches, precompute=True, checkpointing=checkpointing)

    return make


SIDES: Mapping[str, Callable[..., Any]] = {
    "ours": _ours(False),
    "ours-checkpointed": _ours(True),
    "trl": _trl(False),
    "trl-checkpointed": _trl(True),
}


def growth(side: str, model: str, workload: str, threads: int) -> int:
    """Bytes, measured in a fresh process.

    Raises:
        RuntimeError: the process failed; its last lines.
    """
    command = [sys.executable, "-m", "benchmarks.step_memory", side, model, workload]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def rows(model: str, workload: str, threads: int) -> list[Row]:
    """Growth of both sides with and without checkpointing, and the ratios (goal G6)."""
    from benchmarks.workloads import MODELS

    shape = MODELS[model]
    gradient = 4 * (shape.body + 2 * shape.head)
    found = []
    for suffix, what in (("", "without checkpointing"), ("-checkpointed", "both checkpointed")):
        peak = {side: growth(side + suffix, model, workload, threads) for side in ("trl", "ours")}
        figure = f"G6 {model} DPO {workload}, memory of a step, {what}: TRL / ours"
        theirs, ours, of_it = (value / 2**20 for value in (peak["trl"], peak["ours"], gradient))
        sizes = f"({theirs:.0f} / {ours:.0f} MiB, gradients {of_it:.0f} of it)"
        ratio = peak["trl"] / peak["ours"]
        beyond = (peak["trl"] - gradient) / max(peak["ours"] - gradient, 1)
        found.append(at_least(figure, ratio, GOAL, sizes))
        found.append(plain(f"{figure}, beyond the gradients", f"{beyond:.2f}x"))
    return found


def measured(side: str, model: str, workload: str) -> int:
    """Bytes of growth in this process."""
    import torch

    from benchmarks.our_steps import reference_of
    from benchmarks.workloads import MODELS, WORKLOADS, Workload, random_rows, shuffled_and_sorted

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    shape = MODELS[model]
    warm = random_rows(Workload("warm", 8, 8), shape.vocabulary, 1, seed=1)
    batch = shuffled_and_sorted(WORKLOADS[workload], shape.vocabulary, BATCHES)[1][PLACE]
    policy = shape.build()
    made = SIDES[side](policy, reference_of(policy), [warm, batch])
    del policy
    made.step(0)
    made.gradients()
    gc.collect()
    grown = growth_from_now()
    made.step(1)
    return grown()


if __name__ == "__main__":
    print(measured(*sys.argv[1:]))
