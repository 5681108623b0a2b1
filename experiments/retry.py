"""Give failed stages all their attempts again; the next run does them.

    python -m experiments.retry runs/demo                              # what there is to retry
    python -m experiments.retry runs/demo --failed
    python -m experiments.retry runs/demo --failed --only method=dpo,stage=train

``--only`` takes the matching cells and what they need, as for experiments.run; of hyperparameters it knows
the axes of the grid. A stage that was interrupted or lost needs no retry: the next run goes on with it.

Writes  removes status.<stage>.json of the failed stages; checkpoints and logs stay
Exit    0, or 1 if a failed stage could not be reset (it runs), or 2 for wrong usage
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.claim import ClaimHeldError
from experiments.overview import Overview, Row, survey
from experiments.recorded_plan import RecordedPlan, read_plan
from experiments.selectors import add_only, parse_only
from experiments.stage_status import reset_status
from experiments.submissions import Queue

USAGE = 2
_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        plan = read_plan(options.runs)
        wanted = plan.select(parse_only(options.only))
        overview = survey(plan, Queue())
        rows = [row for row in overview.rows if row.index in wanted and _has_failed(row)]
        if not options.failed:
            print("\n".join(_offer(overview, rows)))  # noqa: T201 the command's output
            return 0
        held = _reset(rows)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except OSError as error:  # its message says what to do
        sys.stderr.write(f"{error}\n")
        return 1
    n_reset = len(rows) - len(held)
    print(_summary(overview, plan, n_reset, wanted))  # noqa: T201 the command's output
    return 1 if held else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.retry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of an experiment, such as runs/demo")
    parser.add_argument("--failed", action="store_true", help="reset the stages whose attempts are used up")
    add_only(parser)
    return parser.parse_args(argv)


def _has_failed(row: Row) -> bool:
    """Also of a stage that has failed and that somebody holds, who has not yet said why."""
    says_so = row.status is not None and row.status.state == "failed"
    return row.state == "failed" or (row.state == "running" and says_so)


def _reset(rows: Sequence[Row]) -> list[Row]:
    """Forgets the failures; returns the stages that somebody works on."""
    held = []
    for row in rows:
        try:
            reset_status(row.folder, row.stage)
        except ClaimHeldError as error:
            held.append(row)
            sys.stderr.write(f"{row.label} runs, so it is left alone ({error})\n")
            continue
        print(f"reset  {row.label}")  # noqa: T201 the command's output
    return held


def _summary(overview: Overview, plan: RecordedPlan, n_reset: int, wanted: set[int]) -> str:
    if not n_reset:
        return f"nothing to retry: no stage that was asked for has failed{_untouched(overview, wanted)}"
    manifest = plan.root / "manifest.yaml"
    ways = f"python -m experiments.run MANIFEST, or sbatch slurm/grid.sh MANIFEST (it was {manifest})"
    return f"{n_reset} stages have all their attempts again; go on with: {ways}"


def _offer(overview: Overview, rows: Sequence[Row]) -> list[str]:
    """What the command without ``--failed`` says."""
    if not rows:
        indices = {row.index for row in overview.rows}
        return [f"nothing to retry: no stage that was asked for has failed{_untouched(overview, indices)}"]
    lines = [f"{len(rows)} stages have failed; add --failed to give them all their attempts again"]
    lines += [f"  {row.label}" for row in rows[:_SHOWN]]
    return lines + ([f"  ... and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else [])


def _untouched(overview: Overview, wanted: set[int]) -> str:
    """A word on stages that look as if they needed a retry and do not."""
    n_lost = sum(row.index in wanted for row in overview.of("lost", "interrupted"))
    return f"; {n_lost} are lost or interrupted, the next run goes on with them by itself" if n_lost else ""


if __name__ == "__main__":
    sys.exit(main())
