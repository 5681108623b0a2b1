"""Show how far an experiment is, from its files alone.

    python -m experiments.status runs/demo

Exit    0, or 2 if the folder holds no experiment
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.atomic import read_json
from experiments.stage_status import EffectiveState, effective_state, read_status

_ORDER: tuple[EffectiveState, ...] = (
    "done",
    "running",
    "interrupted",
    "lost",
    "failed",
    "cancelled",
    "stale",
    "pending",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="folders of experiments, such as runs/demo"
    )
    options = parser.parse_args(argv)
    for root in options.runs:
        try:
            lines = describe(root, _read_plan(root))
        except ValueError as error:
            print(error, file=sys.stderr)  # noqa: T201 the command's own message
            return 2
        print("\n".join(lines))  # noqa: T201 the command's output
    return 0


def _read_plan(root: Path) -> dict[str, Any]:
    if not (root / "plan.json").is_file():
        raise ValueError(
            f"{root} holds no experiment (no plan.json); make one with: python -m experiments.run MANIFEST"
        )
    return read_json(root / "plan.json")


def describe(root: Path, plan: dict[str, Any]) -> list[str]:
    """Stages by state, then every stage that is neither done nor untouched."""
    rows = [
        (job, effective_state(root / job["folder"], job["stage"], job["stage_hash"])) for job in plan["jobs"]
    ]
    stages = list(dict.fromkeys(job["stage"] for job in plan["jobs"]))
    found = {state for _, state in rows}
    states = [state for state in _ORDER if state in found]
    heads = "".join(f"{state:>12}" for state in states)
    lines = [f"{plan['name']}: {len(plan['cells'])} cells", f"  {'stage':<10}{heads}"]
    for stage in stages:
        counts = Counter(state for job, state in rows if job["stage"] == stage)
        lines.append("  " + f"{stage:<10}" + "".join(f"{counts[state] or '-':>12}" for state in states))
    lines += [_detail(root, job, state) for job, state in rows if state not in ("done", "pending")]
    return lines


def _detail(root: Path, job: dict[str, Any], state: str) -> str:
    folder = root / job["folder"]
    status = read_status(folder, job["stage"])
    line = f"  {state:<12} {job['label']}"
    progress = folder / f"progress.{job['stage']}.json"
    if state == "running" and progress.is_file():
        found = read_json(progress)
        line += f"  step {found['step']} of {found['total']}"
    if status is not None and state == "running":
        line += f"  for {time.time() - status.start:.0f} s on {status.host}"
    if status is not None and status.error:
        line += f"  {status.error.get('class')}; log: {folder / 'logs' / (job['stage'] + '.log')}"
    return line


if __name__ == "__main__":
    sys.exit(main())
