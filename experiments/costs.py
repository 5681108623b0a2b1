"""Hours and energy in the words of ``experiments.plan``: what a study has used, what it will still take."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.attempt_records import read_records
from experiments.projection import Projection

_JOULES_PER_KWH = 3.6e6


def cost_lines(
    root: Path,
    jobs: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    to_run: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What is to go and what is used; nothing of what no attempt is known of.

    Args:
        root: ``runs/<name>``.
        jobs: entries of all jobs of the study, in the form of ``plan.json``; forecasts rest on these.
        chosen: those that the plan speaks of.
        to_run: those of them that are not done.
    """
    device = "gpus" if any(job["gpus"] for job in jobs) else "cpus"
    return [*_to_go(Projection(root, jobs), to_run, device), *_used(root, chosen, device)]


def _to_go(projection: Projection, to_run: Sequence[Mapping[str, Any]], device: str) -> list[str]:
    if not projection.n_finished or not to_run:
        return []
    hours_of = projection.gpu_hours if device == "gpus" else projection.cpu_hours
    hours, n_unknown = hours_of(to_run)
    rest = f"{n_unknown} of {len(to_run)} stages to run have no finished one like them"
    if n_unknown == len(to_run):
        return [f"no forecast: {rest}"]
    basis = "by the median of finished stages like them"
    return [f"about {_hours(hours, device)} to go, {basis}" + (f" ({rest})" if n_unknown else "")]


def _used(root: Path, chosen: Iterable[Mapping[str, Any]], device: str) -> list[str]:
    """Of all attempts, the failed ones too."""
    stages = {(job["folder"], job["stage"]) for job in chosen}
    records = [
        record
        for folder in dict.fromkeys(folder for folder, _ in stages)
        for record in read_records(root / folder)
        if (folder, record["stage"]) in stages
    ]
    if not records:
        return []
    hours = sum((record["wall_s"] or 0.0) * (record[device] or 0) for record in records) / 3600
    joules = [record["energy_j"] for record in records if record["energy_j"] is not None]
    # GPUs that do not count, or whose attempt was lost, have used some too
    silent = any(record["energy_j"] is None and record["gpus"] for record in records)
    energy = f", {'at least ' if silent else ''}{amount(sum(joules) / _JOULES_PER_KWH)} kWh" if joules else ""
    return [f"used so far: {_hours(hours, device)}{energy}"]


def _hours(hours: float, device: str) -> str:
    return f"{amount(hours)} {device[:-1].upper()} hours"


def amount(value: float) -> str:
    """Two digits that count, or one after the point."""
    if value and value < 0.01:
        return "less than 0.01"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
