"""Take a study's jobs out of SLURM's queue and stop those that run.

    python -m experiments.cancel runs/demo --dry-run                   # what would be cancelled
    python -m experiments.cancel runs/demo                             # everything, the report too
    python -m experiments.cancel runs/demo --only method=dpo,seed=2
    python -m experiments.cancel runs/demo --orphans                   # what an older manifest asked for

With ``--only``, elements of arrays all of whose stages match (those that are done do not count); what
matching cells share with others goes on. A stage that runs gets SIGTERM from SLURM, saves at the next safe
point and is ``interrupted``. No stage is marked: the same sbatch command goes on later. While a driver is
at work on the study, or where squeue gives no answer, nothing is cancelled.

Reads   RUNS/submissions/*/jobs.json and the lists beside them; RUNS/plan.json for --only and --orphans
Exit    0, also if nothing is queued; 1 if scancel failed or is not there, squeue gives no answer or a driver
        is at work; 2 for wrong usage
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.claim import claim_state
from experiments.overview import of_older_plans, survey
from experiments.recorded_plan import RecordedPlan, read_plan
from experiments.selectors import parse_only
from experiments.submissions import Element, Queue, read_queue

FAILED, USAGE = 1, 2
_IDS_PER_CALL = 500
_TIMEOUT_S = 120.0  # a busy controller takes its time with large arrays


@dataclass(frozen=True)
class Target:
    """What one id given to scancel stands for."""

    job: str
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        only = parse_only(options.only)
        plan = _plan(options.runs, is_needed=bool(only) or options.orphans)
        if why_not := _driver(options.runs):
            sys.stderr.write(f"{why_not}\n")
            return FAILED
        queue = read_queue(options.runs)
        targets = _targets(plan, queue, only, orphans=options.orphans)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    for fault in queue.faults:
        sys.stderr.write(f"warning: {fault}\n")
    if not queue.answered:
        sys.stderr.write(
            "SLURM's queue could not be asked, so nothing is cancelled; try later, or where squeue answers\n"
        )
        return FAILED
    if not targets:
        what = "that matches" if (only or options.orphans) and queue.elements else "of this study"
        print(f"nothing {what} is in SLURM's queue")  # noqa: T201 the command's output
        return 0
    verb = "would cancel" if options.dry_run else "cancel"
    for target in targets:
        print(f"{verb}  {target.job}  {target.text}")  # noqa: T201 the command's output
    if options.dry_run:
        return 0
    if complaint := _scancel([target.job for target in targets]):
        sys.stderr.write(f"{complaint}\n")
        return FAILED
    runs = any(element.runs for element in queue.elements)
    words = "stages that ran save and are interrupted" if runs else "nothing of the study ran"
    later = "" if options.orphans else "; the same sbatch slurm/grid.sh command goes on later"
    print(words + later)  # noqa: T201 the command's output
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cancel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of an experiment, such as runs/demo")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only",
        default="",
        metavar="KEY=VALUE,...",
        help="only what the matching cells alone need; keys: model, task, method, seed, stage, params.X",
    )
    which.add_argument(
        "--orphans", action="store_true", help="only elements that do nothing that the newest plan names"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be cancelled, and end")
    return parser.parse_args(argv)


def _plan(root: Path, *, is_needed: bool) -> RecordedPlan | None:
    """The newest plan; None where it is gone or damaged and the submissions alone tell what to cancel."""
    try:
        return read_plan(root)
    except (OSError, ValueError):
        if is_needed or not (root / "submissions").is_dir():
            raise
        return None


def _driver(root: Path) -> str:
    """Who submits jobs of the study at this moment, and what to do; empty if nobody does."""
    state = claim_state(root, "submit")
    if state.kind != "held":
        return ""
    owner = state.owner or "an owner that cannot be read"
    return f"a driver is at work on this study ({owner}), so nothing is cancelled; cancel when it has ended"


def _targets(
    plan: RecordedPlan | None, queue: Queue, only: Mapping[str, Any], *, orphans: bool
) -> list[Target]:
    if plan is not None and orphans:
        return [Target(element.job, element.label) for element in of_older_plans(plan, queue)]
    return choose(plan, queue, only) if plan is not None and only else _everything(queue)


def choose(plan: RecordedPlan, queue: Queue, only: Mapping[str, Any]) -> list[Target]:
    """The elements that have nothing to do but what matches; with the last of them the report, too.

    Raises:
        ValueError: a value that no cell has, or values that no cell has together.
    """
    wanted = plan.select_alone(only)
    done = {row.index for row in survey(plan, Queue()).of("done")}
    able = [element for element in (*queue.elements, *queue.stuck) if element.stages]
    chosen = [element for element in able if _is_within(element, plan, wanted, done)]
    if chosen and len(chosen) == len(able):
        return _everything(queue)
    return [Target(element.job, element.label) for element in chosen]


def _is_within(element: Element, plan: RecordedPlan, wanted: set[int], done: set[int]) -> bool:
    indices = [plan.index.get(key) for key in element.stages]
    ahead = {index for index in indices if index not in done}
    return bool(ahead) and ahead <= wanted  # None: of an older plan, so nothing says whether it matches


def _everything(queue: Queue) -> list[Target]:
    n_running: dict[str, int] = {}
    n_elements: dict[str, int] = {}
    for element in (*queue.elements, *queue.stuck):
        job = element.job.partition("_")[0]
        n_elements[job] = n_elements.get(job, 0) + 1
        n_running[job] = n_running.get(job, 0) + element.runs
    targets = []
    for array in queue.arrays:
        number, running = n_elements.get(array.job, 0), n_running.get(array.job, 0)
        runs = f", {running} of them running" if running else ""
        queued = f": {number} in the queue{runs}" if number else ""
        targets.append(Target(array.job, f"{array.name}{queued}"))
    return targets


def _scancel(jobs: Sequence[str]) -> str:
    """Cancels; returns what went wrong, nothing if all went well."""
    complaints: list[str] = []
    for some in _chunks(jobs):
        try:
            told = subprocess.run(
                ["scancel", *some],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            return "no scancel on this machine, so nothing was cancelled; use a login node of the cluster"
        except subprocess.TimeoutExpired:
            return f"scancel gave no answer in {_TIMEOUT_S:.0f} s; ask squeue what is left, then cancel again"
        if told.returncode:
            words = told.stderr.strip() or f"exit code {told.returncode}"
            complaints.append(f"not everything was cancelled: {words}")
    return "\n".join(complaints)


def _chunks(jobs: Sequence[str]) -> Iterable[Sequence[str]]:
    return (jobs[first : first + _IDS_PER_CALL] for first in range(0, len(jobs), _IDS_PER_CALL))


if __name__ == "__main__":
    sys.exit(main())
