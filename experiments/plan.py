"""Show the cells of a study, what is done and what would run; start and write nothing.

    python -m experiments.plan experiments/manifests/demo.yaml [--only method=dpo] [--stages]
    python -m experiments.plan MANIFEST --why tiny.numbers.dpo.s1      # what changed since it was run

Exit    0, or 2 for a fault in the manifest
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.costs import cost_lines
from experiments.job import Job
from experiments.loading import EXIT_BAD_MANIFEST, Loaded, load
from experiments.pieces import missing_pieces
from experiments.selectors import parse_only
from experiments.stage_status import EffectiveState, effective_state, read_status
from experiments.why import explain
from po.piped import piped

_WHY = {
    "pending": "not started",
    "stale": "its inputs or files changed",
    "lost": "its process died",
    "interrupted": "was interrupted",
    "failed": "failed",
    "cancelled": "was cancelled",
    "running": "runs now",
    "done": "done",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--only", default="", metavar="KEY=VALUE,...", help="as for experiments.run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--stages", action="store_true", help="list every stage, not only the cells")
    parser.add_argument("--smoke", action="store_true", help="plan of: run --smoke")
    parser.add_argument("--why", metavar="CELL", help="compare a cell with the folders that it had before")
    options = parser.parse_args(argv)
    try:
        loaded = load(options.manifest, options.runs, smoke=options.smoke)
        jobs = loaded.graph.select(parse_only(options.only))
        lines = explain(loaded, options.why) if options.why else describe(loaded, jobs, stages=options.stages)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 the command's own message
        return EXIT_BAD_MANIFEST
    print("\n".join(lines))  # noqa: T201 the command's output
    return 0


def describe(loaded: Loaded, jobs: Sequence[Job], *, stages: bool) -> list[str]:
    """The plan as lines of text."""
    states = {job.key: effective_state(job.folder, job.stage, job.stage_hash) for job in jobs}
    reasons = {job.key: _reason(job, states[job.key]) for job in jobs}
    lines = [f"{loaded.manifest.name}: {len(loaded.grid.cells)} cells in {loaded.root}"]
    lines += [f"warning: {warning}" for warning in loaded.grid.warnings]
    lines += [f"warning: {piece.place}: {piece.message}" for piece in missing_pieces(loaded, jobs, states)]
    lines += [f"note: {note}" for note in loaded.grid.notes]
    if stages:
        lines += [f"  {states[job.key]:<12} {job.label}" for job in jobs]
    else:
        lines += _cell_lines(loaded, reasons)
    counts = Counter(reasons.values())
    done = counts.pop(_WHY["done"], 0)
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    lines.append(
        f"{len(jobs)} stages: {done} done, {len(jobs) - done} to run" + (f" ({listed})" if listed else "")
    )
    to_run = [job for job in jobs if states[job.key] != "done"]
    entries = {job.key: loaded.entry(job) for job in loaded.graph.jobs.values()}
    chosen, waiting = ([entries[job.key] for job in some] for some in (jobs, to_run))
    return lines + cost_lines(loaded.root, list(entries.values()), chosen, waiting)


def _reason(job: Job, state: EffectiveState) -> str:
    """Why a stage is to be run, in words."""
    if state == "pending":
        status = read_status(job.folder, job.stage)
        if status is not None and status.attempt:  # one that found no parent has given its number back
            return "failed, will be tried again"
    return _WHY[state]


def _cell_lines(loaded: Loaded, reasons: Mapping[tuple[str, str], str]) -> list[str]:
    shown = [
        cell
        for cell in loaded.grid.cells
        if any(job.key in reasons for job in loaded.graph.of_cell[cell.name])
    ]
    width = max((len(cell.name) for cell in shown), default=0)
    lines = []
    for cell in shown:
        parts = [
            f"{job.stage} {reasons[job.key]}" for job in loaded.graph.of_cell[cell.name] if job.key in reasons
        ]
        digest = loaded.study.cell(cell).digest[:10]
        lines.append(f"  {cell.name:<{width}}  {digest}  {'; '.join(parts)}")
    return lines


if __name__ == "__main__":
    sys.exit(piped(main))
