"""A grid of eight methods, everything included: our study against TRL's trainers run eight times.

    python -m benchmarks.grid               # summarization lengths, 32 pairs
    python -m benchmarks.grid --quick       # translation lengths, 16 pairs
    python -m benchmarks.grid --workload MT --pairs 96

Four methods with a reference (dpo, ipo, slic_dpo, robust_dpo), four without (simpo, cpo, slic, orpo). The
model is ``matched`` of ``benchmarks.workloads``: random weights, fp32, read from a folder; batches of 8;
one epoch. Counted is all from the start of the first process to the end of the last: imports, load,
tokenization, reference pass, training, saving; not the making of the files. Ours is
``experiments.run --only stage=train``, one thread a training and as many side by side as there are cores.
TRL's are processes with all cores, one after the other:

* as shipped: its defaults but fp32; shuffled in our order, so that the losses of all steps are compared;
* tuned: pairs sorted by length, reference log-probabilities precomputed, gradient checkpointing where faster.

With few steps the fixed costs weigh more than in a study, so the ratio of the steps alone is given too.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.grid_sides import Outcome, run_ours, run_trl
from benchmarks.grid_work import write_work
from benchmarks.table import Row, at_least, equal_within, finish, greatest, plain
from benchmarks.workloads import MODELS, WORKLOADS, Shape, Workload

GOALS = {"TRL as shipped": 5.0, "TRL tuned": 3.0}
LOSS_GAP = 1e-3


def run_grid(workload: Workload, n_pairs: int, shape: Shape) -> dict[str, Outcome]:
    """Runs all sides on the same files, which are gone afterwards; ours comes first."""
    with tempfile.TemporaryDirectory() as name:
        work = write_work(Path(name), shape, workload, n_pairs)
        return {
            "ours": run_ours(work),
            "TRL as shipped": run_trl(work, tuned=False),
            "TRL tuned": run_trl(work, tuned=True),
        }


def loss_gap(ours: Outcome, theirs: Outcome) -> float:
    """The largest difference between the losses of a step, relative where losses exceed 1.

    Raises:
        RuntimeError: the sides took different numbers of steps.
    """
    gaps: list[float] = []
    for method, expected in theirs.losses.items():
        found = ours.losses[method]
        if len(found) != len(expected):
            raise RuntimeError(f"{method}: {len(found)} steps of ours, {len(expected)} of TRL")
        gaps += [abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, expected, strict=True)]
    return greatest(gaps)


def rows_of(found: Mapping[str, Outcome], what: str) -> Iterator[Row]:
    """The table: goals, what they consist of, and the check that all sides compute the same.

    Args:
        found: the sides, ``ours`` among them.
        what: the work, for the figures' names.
    """
    ours = found["ours"]
    for name, goal in GOALS.items():
        yield at_least(f"grid, {what}: {name} / ours, everything", found[name].wall_s / ours.wall_s, goal)
    for name in GOALS:
        ratio = found[name].steps_wall_s / ours.steps_wall_s
        yield plain(f"grid: {name} / ours, steps alone", f"{ratio:.2f}x")
    yield equal_within(
        "grid: losses of all steps, TRL as shipped - ours", loss_gap(ours, found["TRL as shipped"]), LOSS_GAP
    )
    for name, side in found.items():
        share = side.steps_wall_s / side.wall_s
        yield plain(f"grid: {name}", f"{side.wall_s:.1f} s, {share:.0%} of it in steps")
        for part, seconds in side.parts.items():
            several = side.at_once > 1 and part.startswith("train")
            how = f", summed over trainings, {side.at_once} at a time" if several else ""
            yield plain(f"grid: {name}: {part}", f"{seconds:.1f} s{how}")


def measure(
    quick: bool = False, workload: str | None = None, n_pairs: int | None = None, shape: Shape | None = None
) -> list[Row]:
    """Rows of (figure, value, goal, verdict); what is not given is as ``quick`` has it."""
    chosen = WORKLOADS[workload or ("MT" if quick else "summ")]
    n_pairs = n_pairs or (16 if quick else 32)
    found = run_grid(chosen, n_pairs, shape or MODELS["matched"])
    return list(rows_of(found, f"{chosen.name}, {n_pairs} pairs"))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where the sides do not compute the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workload", choices=sorted(WORKLOADS))
    parser.add_argument("--pairs", type=int, default=None, help="a multiple of 8")
    options = parser.parse_args(argv)
    rows = measure(options.quick, options.workload, options.pairs)
    return finish(rows)


if __name__ == "__main__":
    sys.exit(main())
