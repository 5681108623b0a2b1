"""Whether torch.compile of the layers pays: a training step of DPO with compiled layers against one without.

python -m benchmarks.compile [--workloads MT,summ] [--precisions fp32,bf16] [--threads N] [--batches N]

Both sides are this project's own, with packed rows of varying length, stored reference values and the model
`matched` of `benchmarks.step` (body 17.7 M); they take each batch in turn, in one process. A step is forward,
loss and backward of 8 pairs. Two batches come first and are not counted. The time that compiling takes is
that of the first two steps, less two of the later ones: with an empty cache, and again with the cache of
that. In float32 losses and gradients are compared on every batch: beyond 1e-4 the exit status is 1.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.our_steps import our_side, reference_of, with_reference
from benchmarks.sides import Found, Side, compare
from benchmarks.table import Row, equal_within, finish, plain
from benchmarks.workloads import MODELS, WORKLOADS, shuffled_and_sorted
from experiments.memory import keep_freed_memory
from po.faults import InputFault
from po.training.kernels import compile_layers

BATCHES, THREADS, FIRST = 7, 2, 2
PRECISIONS = ("fp32", "bf16")
TOLERATED = 1e-4


def measure(
    workloads: Sequence[str] = tuple(WORKLOADS),
    precisions: Sequence[str] = PRECISIONS,
    n_batches: int = BATCHES,
    threads: int = THREADS,
    model: str = "matched",
) -> list[Row]:
    """Rows of ratios and of what compiling costs; the cache of compiled code is a new one."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as cache:
        before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        try:
            return [
                row
                for w in workloads
                for p in precisions
                for row in _compared(MODELS[model], w, p, n_batches)
            ]
        except InputFault as fault:
            return [plain("compiled layers", f"not measured: {fault}")]
        finally:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            if before is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _compared(shape: Any, workload: str, precision: str, n_batches: int) -> list[Row]:
    policy = shape.build()
    batches, _ = shuffled_and_sorted(WORKLOADS[workload], shape.vocabulary, n_batches)
    batches = with_reference(batches, reference_of(policy))

    def side(name: str) -> Side:
        return our_side(name, policy, batches, "dpo", arguments={"bf16": precision == "bf16"})

    eager, compiled = side("eager"), side("compiled")
    torch.compiler.reset()
    compile_layers(compiled.model)
    cold = _first_steps(compiled)
    torch.compiler.reset()
    warm = _first_steps(compiled)
    found = compare([eager, compiled], n_batches)
    return _rows(f"{shape.name} DPO {workload} {precision}", found, (cold, warm))


def _first_steps(side: Side) -> float:
    started = time.perf_counter()
    for number in range(FIRST):
        side.step(number)
        side.gradients()
    return time.perf_counter() - started


def _rows(name: str, found: Any, first: tuple[float, float]) -> list[Row]:
    eager: Found = found["eager"]
    compiled: Found = found["compiled"]
    cold, warm = (max(0.0, seconds - FIRST * compiled.median) for seconds in first)
    gap = max(compiled.loss_gap, compiled.gradient_gap)
    exact = name.endswith("fp32")
    return [
        plain(f"{name}: step as it is, seconds", f"{eager.median:.3f}"),
        plain(f"{name}: step with compiled layers, seconds", f"{compiled.median:.3f}"),
        plain(f"{name}: as it is / compiled", f"{eager.times(compiled):.2f}x"),
        plain(f"{name}: compiling, seconds, empty cache / filled", f"{cold:.0f} / {warm:.0f}"),
        equal_within(f"{name}: greatest difference", gap, TOLERATED)
        if exact
        else plain(f"{name}: greatest difference", f"{gap:.1e}"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where float32 sides differ by more than they may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=list(WORKLOADS))
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=list(PRECISIONS))
    parser.add_argument("--threads", type=int, default=THREADS, help="of PyTorch")
    parser.add_argument("--batches", type=int, default=BATCHES, help="that are counted")
    options = parser.parse_args(argv)
    for name, known in (("workloads", WORKLOADS), ("precisions", PRECISIONS)):
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"unknown {name}: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    rows = measure(options.workloads, options.precisions, options.batches, options.threads)
    return finish(rows)


if __name__ == "__main__":
    sys.exit(main())
