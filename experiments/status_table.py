"""The overview of a study as text: the table of states, progress, and the stages that a person looks for."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.costs import amount
from experiments.outlook import Outlook, left_s
from experiments.overview import STATES, Overview, Row, ShownState, of_older_plans
from experiments.stage_details import details
from experiments.submissions import Queue

SHOWN = 10  # stages of one state, unless all are asked for
_BAR = 30
# Reasons of SLURM's for which an element waits that will have its turn.
_USUAL = frozenset({"", "None", "Dependency", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime"})
_LISTED: tuple[tuple[ShownState, str], ...] = (
    ("running", "running"),
    ("failed", "failed; again with: python -m experiments.retry {root} --failed"),
    ("damaged", "damaged files; delete them, then run again"),
    ("lost", "lost: the process died without a word; the next run goes on with them"),
    ("blocked", "blocked"),
    ("interrupted", "interrupted; the next run goes on with them"),
    ("pending", "failed, and will be tried again"),
)
SecondsOf = Callable[[Mapping[str, Any]], float | None]


def describe(overview: Overview, outlook: Outlook, seconds_of: SecondsOf, *, everything: bool) -> list[str]:
    """The lines of ``experiments.status``.

    Args:
        overview: the stages.
        outlook: used and projected hours.
        seconds_of: what a job of the plan takes.
        everything: name every stage, not only the first ten of a state.
    """
    plan = overview.plan
    lines = [f"{plan.name}: {len(plan.cells)} cells, {len(plan.jobs)} stages in {plan.root}"]
    lines += _table(overview)
    lines.append(_bar(sum(row.state == "done" for row in overview.rows), len(overview.rows)))
    lines += _outlook_lines(outlook)
    lines += _queue_lines(overview)
    for state, title in _LISTED:
        rows = [row for row in overview.of(state) if state != "pending" or row.status is not None]
        if rows:
            shown = rows if everything else rows[:SHOWN]
            lines += ["", f"  {title.format(root=plan.root)}"]
            lines += [f"    {_line(row, overview, seconds_of)}" for row in shown]
            lines += [f"    ... and {len(rows) - len(shown)} more (--all)"] if len(rows) > len(shown) else []
    return lines


def counts(overview: Overview) -> dict[str, dict[str, int]]:
    """Stage -> state -> number, in the plan's order and without zeros."""
    found: dict[str, Counter[str]] = {}
    for row in overview.rows:
        found.setdefault(row.stage, Counter())[row.state] += 1
    return {
        stage: {state: number[state] for state in STATES if number[state]} for stage, number in found.items()
    }


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min`` or ``2 d 4 h``."""
    seconds = max(0.0, seconds)
    minutes, hours = int(seconds / 60), int(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def _table(overview: Overview) -> list[str]:
    by_stage = counts(overview)
    states = [state for state in STATES if any(state in found for found in by_stage.values())]
    width = max([9, *(len(stage) for stage in by_stage)])
    lines = ["  " + f"{'stage':<{width}}" + "".join(f"{state:>13}" for state in states)]
    for stage, found in by_stage.items():
        numbers = "".join(f"{found.get(state) or '-':>13}" for state in states)
        lines.append(f"  {stage:<{width}}{numbers}")
    return lines


def _bar(n_done: int, n_all: int) -> str:
    share = n_done / n_all if n_all else 1.0
    filled = int(share * _BAR)
    percent = int(share * 100)  # 100 only when all is done
    return f"  [{'#' * filled}{'.' * (_BAR - filled)}] {percent} %  {n_done} of {n_all} stages done"


def _outlook_lines(outlook: Outlook) -> list[str]:
    unit = f"{outlook.unit} hours"
    energy = f", {outlook.used_kwh:.2g} kWh" if outlook.used_kwh is not None else ""
    parts = [f"used: {amount(outlook.used_hours)} {unit}{energy}"] if outlook.used_hours else []
    if outlook.n_left > outlook.n_unknown:
        least = "at least" if outlook.n_unknown else "about"
        unlike = f" ({outlook.n_unknown} stages not counted: none like them is done yet)"
        unknown = unlike if outlook.n_unknown else ""
        parts.append(f"to go: {least} {amount(outlook.left_hours)} {unit}{unknown}")
    if outlook.n_left:
        parts.append(_end(outlook))
    return [f"  {'; '.join(parts)}"] if parts else []


def _end(outlook: Outlook) -> str:
    if outlook.eta_s is None:
        why = "" if outlook.n_running else " (nothing runs)"
        return f"end: not yet known{why}"
    least = "at least " if outlook.n_unknown else "about "
    return f"end: in {least}{duration(outlook.eta_s)} with {outlook.n_running} at a time"


def _queue_lines(overview: Overview) -> list[str]:
    queue, lines = overview.queue, [f"  warning: {fault}" for fault in overview.queue.faults]
    if not queue.answered and not overview.is_done:
        lines.append("  SLURM's queue could not be asked; what was given to it is 'submitted?'")
    if queue.stuck:
        jobs = ", ".join(element.job for element in queue.stuck[:SHOWN])
        more = f" ... and {len(queue.stuck) - SHOWN} more" if len(queue.stuck) > SHOWN else ""
        lines.append(
            f"  warning: SLURM jobs that can never start, what they depend on has failed: {jobs}{more}"
        )
    return [*lines, *_waiting(queue), *_older(overview), *_unbegun(overview)]


def _waiting(queue: Queue) -> list[str]:
    """What waits for other reasons than that others are before it."""
    by_reason: dict[str, list[str]] = {}
    for element in queue.elements:
        if element.state == "PENDING" and element.reason not in _USUAL:
            by_reason.setdefault(element.reason, []).append(element.job)
    return [f"  SLURM: {_some(jobs)}: {reason}" for reason, jobs in by_reason.items()]


def _some(jobs: Sequence[str]) -> str:
    return f"{jobs[0]} waits" if len(jobs) == 1 else f"{jobs[0]} and {len(jobs) - 1} more wait"


def _older(overview: Overview) -> list[str]:
    jobs = [element.job for element in of_older_plans(overview.plan, overview.queue)]
    if not jobs:
        return []
    shown = ", ".join(jobs[:SHOWN]) + (" ..." if len(jobs) > SHOWN else "")
    remedy = f"python -m experiments.cancel {overview.plan.root} --orphans"
    what = f"{_elements(len(jobs))} in SLURM's queue only for an older manifest: {shown}"
    return [f"  warning: {what}; take out with: {remedy}"]


def _unbegun(overview: Overview) -> list[str]:
    begun, never = overview.ended_unbegun, overview.n_never_run
    lines = []
    if begun:
        log = begun[0].relative_to(overview.plan.root)
        lines.append(
            f"  warning: {_elements(len(begun))} of SLURM ended without beginning a stage; look at {log}"
        )
    if never:
        lines.append(
            f"  {_elements(never)} left SLURM's queue without a node (cancelled?); sbatch queues them again"
        )
    return lines


def _elements(number: int) -> str:
    return f"{number} element{'s' if number > 1 else ''}"


def _line(row: Row, overview: Overview, seconds_of: SecondsOf) -> str:
    found = details(row, overview.plan)
    parts = {
        "running": lambda: _running(found, left_s(row, seconds_of(overview.plan.jobs[row.index]))),
        "lost": lambda: _lost(found),
        "blocked": lambda: [f"by {found.get('blocked_by')}"],
        "interrupted": lambda: _steps(found),
        "damaged": lambda: [row.fault],
    }.get(row.state, lambda: _failure(found))()
    return f"{row.label}  {', '.join(parts)}".rstrip()


def _steps(found: Mapping[str, Any]) -> list[str]:
    return [f"step {found['step']} of {found['total']}"] if "step" in found else []


def _running(found: Mapping[str, Any], left: float | None) -> list[str]:
    parts = _steps(found)
    parts += [f"for {duration(found['elapsed_s'])}"] if "elapsed_s" in found else ["about to begin"]
    parts += [f"about {duration(left)} to go"] if left is not None else []
    parts += [f"on {found['host']}"] if "host" in found else []
    return parts + ([f"SLURM job {found['slurm_job']}"] if "slurm_job" in found else [])


def _lost(found: Mapping[str, Any]) -> list[str]:
    parts = _steps(found)
    if "host" in found:
        parts.append(f"last seen {duration(time.time() - found['heartbeat'])} ago on {found['host']}")
    return parts + [text for text in _failure(found) if "attempt" in text]


def _failure(found: Mapping[str, Any]) -> list[str]:
    parts = []
    if "attempt" in found:
        of = f" of {found['max_attempts']}" if "max_attempts" in found else ""
        parts.append(f"attempt {found['attempt']}{of}")
    error, last = found.get("error", ""), found.get("last_line", "")
    if error or last:
        # the last line of a traceback begins with the class
        said = last if last.startswith(error) else ": ".join(filter(None, (error, last)))
        parts.append(said)
    return parts + ([f"log: {found['log']}"] if "log" in found else [])


def as_json(overview: Overview, outlook: Outlook) -> dict[str, Any]:
    """The same for programs: counts, outlook and every stage that is not done."""
    plan, queue = overview.plan, overview.queue
    left: Iterable[Row] = (row for row in overview.rows if row.state != "done")
    return {
        "schema": 1,
        "name": plan.name,
        "root": str(plan.root),
        "time": time.time(),
        "n_cells": len(plan.cells),
        "n_stages": len(plan.jobs),
        "counts": counts(overview),
        "queue_answered": queue.answered,
        "warnings": list(queue.faults),
        "stuck_jobs": [element.job for element in queue.stuck],
        "older_jobs": [element.job for element in of_older_plans(plan, queue)],
        "ended_unbegun": [str(log) for log in overview.ended_unbegun],
        "outlook": outlook.as_json(),
        "stages": [details(row, plan) for row in left],
    }
