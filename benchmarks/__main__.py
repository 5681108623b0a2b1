"""Run every benchmark and print one table.

python -m benchmarks            # two hours on two cores; TRL and vLLM where they are installed
"""

import importlib
import sys

from benchmarks.table import print_table

NAMES = (
    "benchmarks.step",
    "benchmarks.head",
    "benchmarks.grid",
    "benchmarks.sft_step",
    "benchmarks.allocator",
    "benchmarks.losses",
    "benchmarks.scoring",
    "benchmarks.generation",
    "benchmarks.scale",
)


def main() -> int:
    """Runs the benchmarks in order; each returns rows of (figure, value) or (figure, value, goal, met)."""
    print_table([row for name in NAMES for row in importlib.import_module(name).measure()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
