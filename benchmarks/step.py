"""A training step of DPO and SimPO against TRL's, as shipped and tuned: time, equality, memory, GEMM share.

python -m benchmarks.step [--quick] [--device cpu|cuda] [--models NAMES] [--threads N] [--batches N]
                          [--profile]

A step is forward, loss and backward of one batch of 8 pairs, through each trainer's own `training_step`; no
optimizer, no collating. All sides take the steps of a batch in turn, in one process, with equal weights and
equal tokens; ratios are medians over batches of the ratio on one batch. Losses and gradients of all float32
sides are compared on every batch: beyond 1e-4 the exit status is 1.

Workloads (median lengths, lognormal with sigma 0.4): MT = prompt 60, completions 40 + 40; summ = 350 and
40 + 40.
Models, Llama with random weights and untied embeddings, float32:
matched    hidden 384, intermediate 1024, 10 layers, vocabulary  9,600: body 17.7 M, head  3.7 M
real32k    hidden 512, intermediate 1376,  8 layers, vocabulary 32,000: body 25.3 M, head 16.4 M
Opponents: TRL as shipped (its defaults but bf16, shuffled batches, live reference) and tuned (sorted batches,
reference computed before, checkpointing on or off, whichever is faster), both under glibc's allocator as it
is: that our stages keep freed memory is one of our speed-ups (`experiments/memory.py`). TRL tuned is also
timed with it. Ours runs on the same batches with stored reference values, which a grid computes once
(`benchmarks.grid` counts that); a row with a live one stands beside it. On CUDA see `benchmarks.step_cuda`.
`--quick`: the small model, one workload, few batches. Rows are also written to stderr as they are found.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from benchmarks import step_cuda, step_memory
from benchmarks.gemm import peak_flops
from benchmarks.step_rows import CPU_GOALS, TRL_IS_HERE, Bench, Setting, profile
from benchmarks.table import Row, finish, plain, print_table
from benchmarks.workloads import MODELS, WORKLOADS
from experiments.memory import keep_freed_memory

BATCHES, QUICK_BATCHES, THREADS = 5, 2, 2
CPU_MODELS, CUDA_MODELS = ("matched", "real32k"), ("matched", step_cuda.BIG)


def measure(
    models: Sequence[str] = CPU_MODELS,
    workloads: Sequence[str] = tuple(WORKLOADS),
    n_batches: int = BATCHES,
    threads: int = THREADS,
) -> list[Row]:
    """All figures on a CPU; G6 is measured first, in processes of its own."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(threads)
    rows = _memory(models[0], threads) if "summ" in workloads else []
    keep_freed_memory()
    benches, peaks = [], [peak_flops()]
    for name in models:
        for workload in workloads:
            setting = Setting(MODELS[name], WORKLOADS[workload], n_batches, goals=CPU_GOALS[workload])
            bench = Bench(setting)
            found = _compared(bench)
            print_table(found, sys.stderr)
            rows += found
            benches.append(bench)
            peaks.append(peak_flops())
    rows.append(plain(f"GEMM peak of this run, {threads} threads, GFLOP/s", f"{max(peaks) / 1e9:.0f}"))
    return rows + [row for bench in benches for row in bench.shares(max(peaks))]


def measure_cuda(models: Sequence[str] = CUDA_MODELS, n_batches: int = BATCHES) -> list[Row]:
    """The same in float32 on the small models, then G12 and the table of memory on the large ones."""
    rows: list[Row] = [] if TRL_IS_HERE else [_without_trl()]
    for name in models:
        if name in CPU_MODELS:
            for workload in WORKLOADS.values():
                bench = Bench(Setting(MODELS[name], workload, n_batches, "cuda"))
                rows += [*bench.dpo_shipped(), *bench.dpo_tuned(), *bench.bf16()]
        else:
            rows += step_cuda.ratios(n_batches, MODELS[name])
    if any(name in step_cuda.TABLE for name in models):
        rows += step_cuda.memory_table()
    return rows


def _compared(bench: Bench) -> list[Row]:
    rows = [*bench.dpo_shipped(), *bench.dpo_tuned()]
    rows += bench.simpo() if TRL_IS_HERE else [_without_trl()]
    return rows + bench.bf16()


def _memory(model: str, threads: int) -> list[Row]:
    return step_memory.rows(model, "summ", threads) if TRL_IS_HERE else [_without_trl()]


def _without_trl() -> Row:
    return plain("TRL", "not installed: a padded twin of its DPO step stands in, SimPO is left out")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where sides differ by more than they may."""
    options = _options(argv)
    if options.profile:
        name = (options.models or CPU_MODELS)[0]
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        for workload in WORKLOADS.values():
            setting = Setting(MODELS[name], workload, options.batches, options.device)
            print(f"{name} DPO {workload.name}\n{profile(Bench(setting))}")
        return 0
    if options.device == "cuda":
        rows = measure_cuda(options.models or CUDA_MODELS, options.batches)
    else:
        workloads = ("MT",) if options.quick else tuple(WORKLOADS)
        models = options.models or (CPU_MODELS[:1] if options.quick else CPU_MODELS)
        rows = measure(models, workloads, options.batches, options.threads)
    return finish(rows)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a minute: one model, MT, two batches")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", type=lambda text: text.split(","), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=THREADS, help="of PyTorch on a CPU")
    parser.add_argument("--batches", type=int, help=f"that are counted; {BATCHES} unless given")
    parser.add_argument("--profile", action="store_true", help="our step by operator instead")
    options = parser.parse_args(argv)
    unknown = set(options.models or ()) - set(MODELS)
    if unknown:
        parser.error(f"unknown models: {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")
    options.batches = options.batches or (QUICK_BATCHES if options.quick else BATCHES)
    return options


if __name__ == "__main__":
    sys.exit(main())
