"""Run every benchmark and print one table.

python -m benchmarks            # about ten minutes on two cores; COMET and vLLM where they are installed
"""

import importlib
import sys

NAMES = (
    "benchmarks.sft_step",
    "benchmarks.allocator",
    "benchmarks.losses",
    "benchmarks.scoring",
    "benchmarks.generation",
    "benchmarks.scale",
)


def main() -> int:
    """Runs the benchmarks in order; each returns rows of (figure, value)."""
    rows = [row for name in NAMES for row in importlib.import_module(name).measure()]
    width = max(len(figure) for figure, _ in rows)
    print(f"{'figure':<{width}}  value")
    for figure, value in rows:
        print(f"{figure:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
