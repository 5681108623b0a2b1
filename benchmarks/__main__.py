"""Run every benchmark and print one table.

python -m benchmarks            # more than two hours on two cores; vLLM and COMET where they are installed

Exit    1 where two sides that must be equal are not, or a benchmark failed; the others are run all the same
"""

import importlib
import sys
import traceback
from collections.abc import Sequence

from benchmarks.table import run

NAMES = (
    "benchmarks.step",
    "benchmarks.head",
    "benchmarks.grid",
    "benchmarks.sft_step",
    "benchmarks.compile",
    "benchmarks.allocator",
    "benchmarks.losses",
    "benchmarks.scoring",
    "benchmarks.generation",
    "benchmarks.scale",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks in order, whatever becomes of those before."""
    failed: list[str] = []
    status = run(lambda: _rows(failed), __doc__, argv)
    if failed:
        print(f"failed, with what is said above: {', '.join(failed)}", file=sys.stderr)
    return int(bool(status or failed))


def _rows(failed: list[str]) -> list[Sequence[str]]:
    """All rows; names of benchmarks that raise are added to ``failed``."""
    rows: list[Sequence[str]] = []
    for name in NAMES:
        try:
            rows += importlib.import_module(name).measure()
        except Exception:  # what the hours before have found is still to be printed
            traceback.print_exc()
            failed.append(name)
    return rows


if __name__ == "__main__":
    sys.exit(main())
