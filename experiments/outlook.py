"""What a study has cost so far and, by what finished stages have taken, what the rest will cost."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from experiments.attempt_records import read_records
from experiments.overview import Listing, Overview, Row, ShownState
from experiments.projection import Projection
from experiments.stage_details import elapsed_s, left_by_steps_s

_GOES_ON: tuple[ShownState, ...] = (
    "running",
    "queued",
    "submitted?",
    "waiting",
    "pending",
    "interrupted",
    "stale",
    "lost",
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Hours are of GPUs where a stage of the study asks for any, else of CPUs (``unit``).

    Attributes:
        used_hours: of all attempts, the failed ones too.
        used_kwh: None where no attempt has measured it.
        left_hours: of what can still run and has a finished stage like it.
        n_left, n_unknown: stages that can still run; those of them with no finished one like them.
        n_running: stages that run now.
        eta_s: seconds until the end with as many stages at a time as now; of the known ones alone. None
            where nothing runs or nothing is known.
    """

    unit: str
    used_hours: float
    used_kwh: float | None
    left_hours: float
    n_left: int
    n_unknown: int
    n_running: int
    eta_s: float | None

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def look_ahead(overview: Overview, seconds_of: Callable[[Mapping[str, Any]], float | None]) -> Outlook:
    """Used and projected hours of a study.

    Args:
        overview: its stages.
        seconds_of: what a job of the plan will take, None where that is not known.
    """
    jobs = overview.plan.jobs
    device = "gpus" if any(job.get("gpus") for job in jobs) else "cpus"
    used_s, joules = _used(overview, device)
    rows = overview.of(*_GOES_ON)
    left = [(jobs[row.index], left_s(row, seconds_of(jobs[row.index]))) for row in rows]
    known = [(job, seconds) for job, seconds in left if seconds is not None]
    n_running = sum(row.state == "running" for row in rows)
    wall_s = sum(seconds for _, seconds in known)
    return Outlook(
        unit="GPU" if device == "gpus" else "CPU",
        used_hours=used_s / 3600,
        used_kwh=None if joules is None else joules / 3.6e6,
        left_hours=sum(seconds * job.get(device, 0) for job, seconds in known) / 3600,
        n_left=len(rows),
        n_unknown=len(left) - len(known),
        n_running=n_running,
        eta_s=wall_s / n_running if n_running and known else None,
    )


def projection_of(overview: Overview) -> Callable[[Mapping[str, Any]], float | None]:
    """Seconds that a job of the plan will take, by what finished ones have taken."""
    return Projection(overview.plan.root, overview.plan.jobs).seconds


def left_s(row: Row, whole_s: float | None) -> float | None:
    """Seconds that a stage still takes: of one that runs by its steps, else by what is known of its like."""
    if row.state != "running":
        return whole_s
    now = time.time()
    by_steps = left_by_steps_s(row, now)
    if by_steps is not None or whole_s is None:
        return by_steps
    return max(0.0, whole_s - (elapsed_s(row, now) or 0.0))


def _used(overview: Overview, device: str) -> tuple[float, float | None]:
    """Seconds times devices, and joules, of all attempts in the plan's folders."""
    seconds, joules = 0.0, None
    listing = Listing(overview.plan.root)
    for folder in dict.fromkeys(job["folder"] for job in overview.plan.jobs):
        if "attempts.jsonl" not in listing.names(folder):
            continue
        for record in read_records(overview.plan.root / folder):
            # of an attempt that was lost some things are not known
            seconds += (record.get("wall_s") or 0.0) * (record.get(device) or 0)
            if record.get("energy_j") is not None:
                joules = (joules or 0.0) + record["energy_j"]
    return seconds, joules
