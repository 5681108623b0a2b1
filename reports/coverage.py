"""Which cells of the grid the report stands on, and why the others are not in it."""

from collections import Counter
from typing import Any

from reports.results import Experiment
from reports.tables import Entry, Table

TONES = {"done": "good", "failed": "bad", "blocked": "bad", "unreadable": "bad", "cancelled": "bad"}


def coverage_table(experiment: Experiment) -> Table:
    """Counts by state and, for every cell that is not done, its state and reason."""
    states = Counter(cell.state for cell in experiment.cells)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    rows = tuple(
        (
            Entry(text=cell.name),
            Entry(text=cell.state, tone=TONES.get(cell.state, "unsure")),
            Entry(text=cell.reason),
        )
        for cell in experiment.cells
        if cell.state != "done"
    )
    caption = f"{len(experiment.cells)} cells: {counts}."
    return Table(caption=caption, header=("cell not done", "state", "reason"), rows=rows, text_columns=3)


def coverage_records(experiment: Experiment) -> list[dict[str, Any]]:
    """One record a cell, for the CSV."""
    return [
        {
            "cell": cell.name,
            "model": cell.model,
            "task": cell.task,
            "method": cell.method,
            "seed": cell.seed,
            "state": cell.state,
            "reason": cell.reason,
        }
        for cell in experiment.cells
    ]
