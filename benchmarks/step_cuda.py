"""G12: steps of a 1.7 B model on a GPU in bfloat16, and the memory they take at V = 128k and 256k.

Needs torch and transformers; TRL is the opponent where it is installed, else `benchmarks.padded_twin`.
Weights are bfloat16 on all sides. Equality is checked twice: in float32 on the small model to 1e-4, and here
to what bfloat16 can hold.
"""

from collections.abc import Callable, Mapping

import torch

from benchmarks.gemm import peak_flops
from benchmarks.our_steps import collated, our_side
from benchmarks.padded_twin import twin_dpo
from benchmarks.sides import Side
from benchmarks.step_rows import CUDA_GOALS, Bench, Setting
from benchmarks.table import Row, plain
from benchmarks.workloads import MODELS, WORKLOADS, Shape

BF16_EXACT = 0.1  # relative distance of gradients of bfloat16 weights; see the float32 rows for what is exact
BIG, TABLE = "1.7b-128k", ("1.7b-128k", "1.7b-256k")


def ratios(n_batches: int, big: Shape = MODELS[BIG], device: str = "cuda") -> list[Row]:
    """DPO on both workloads against the opponents."""
    found: list[Row] = []
    for workload in WORKLOADS.values():
        goals = CUDA_GOALS[workload.name]
        bench = Bench(Setting(big, workload, n_batches, device, torch.bfloat16, BF16_EXACT, goals))
        found += [*bench.dpo_shipped(), *bench.dpo_tuned()]
        found += bench.shares(peak_flops(device, torch.bfloat16))
    return found


def memory_table(names: tuple[str, ...] = TABLE, workload: str = "summ") -> list[Row]:
    """Peak of allocated memory in a step beyond what was allocated before it, for each way to take it."""
    found = []
    for name in names:
        bench = Bench(Setting(MODELS[name], WORKLOADS[workload], 1, "cuda", torch.bfloat16))
        gradient = sum(p.numel() * p.element_size() for p in bench.policy.parameters())
        what = f"{name} DPO {workload}, memory of a step"
        found.append(plain(f"{what}: gradients alone", f"{gradient / 2**30:.2f} GiB"))
        for side, make in _memory_sides(bench).items():
            text = _peak_text(make)
            found.append(plain(f"{what}: {side}", text))
    return found


def _memory_sides(bench: Bench) -> Mapping[str, Callable[[], Side]]:
    batches = collated(bench.ordered, "dpo")

    def ours(checkpointing: bool) -> Side:
        arguments = {"gradient_checkpointing": checkpointing}
        return our_side("ours", bench.policy, bench.ordered, "dpo", arguments=arguments)

    def twin(checkpointing: bool, full: bool) -> Side:
        return twin_dpo("twin", bench.policy, batches, checkpointing=checkpointing, full_logits=full)

    return {
        "ours": lambda: ours(False),
        "ours, checkpointed": lambda: ours(True),
        "padded twin, tiled head": lambda: twin(False, False),
        "padded twin, tiled head, checkpointed": lambda: twin(True, False),
        "padded, full logits, checkpointed": lambda: twin(True, True),
    }


def _peak_text(make: Callable[[], Side]) -> str:
    """GiB of a second step; a side that does not fit says so."""
    try:
        side = make()
        side.step(0)
        side.gradients()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        side.step(0)
        torch.cuda.synchronize()
        return f"{(torch.cuda.max_memory_allocated() - before) / 2**30:.2f} GiB"
    except torch.cuda.OutOfMemoryError:
        return "does not fit"
