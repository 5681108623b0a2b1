"""How the training went: the last logged values of each method, and the curves that show how it got there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.results import Cell
from reports.tables import Entry, Table, missing, number
from reports.variants import Variant

# Column -> (the keys it may stand under in train.json or the log, digits shown). The first key found counts.
FINAL_VALUES: Mapping[str, tuple[tuple[str, ...], int]] = {
    "loss": (("loss", "train_loss"), 4),
    "dev loss": (("eval_loss",), 4),
    "rewards/margins": (("rewards/margins", "eval_rewards/margins"), 3),
    "rewards/accuracies": (("rewards/accuracies", "eval_rewards/accuracies"), 3),
    "logps/chosen": (("logps/chosen", "eval_logps/chosen"), 2),
    "logps/rejected": (("logps/rejected", "eval_logps/rejected"), 2),
}
TOTALS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "seconds": (("seconds", "train_runtime", "wall_s"), 1),
    "tokens": (("tokens", "num_input_tokens_seen", "num_tokens"), 0),
}
CHANGE = "change of logps/chosen"
CURVES = ("rewards/margins", "rewards/accuracies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One logged value of one training run."""

    label: str
    seed: int | None
    steps: tuple[float, ...]
    values: tuple[float, ...]


def logged(cell: Cell, key: str) -> list[tuple[float, float]]:
    """(step, value) of every finite value of that key, in the order of the log."""
    pairs = []
    for row in cell.log:
        value, step = row.get(key), row.get("step")
        if isinstance(value, int | float) and isinstance(step, int | float) and np.isfinite(value):
            pairs.append((float(step), float(value)))
    return pairs


def _last(cell: Cell, keys: Sequence[str]) -> float | None:
    for key in keys:
        found = logged(cell, key)
        if found:
            return found[-1][1]
    return None


def _total(cell: Cell, keys: Sequence[str]) -> float | None:
    """A value of the whole training: from train.json, else from the log's last row that has it."""
    for key in keys:
        value = cell.training.get(key)
        if isinstance(value, int | float):
            return float(value)
    return _last(cell, keys)


def _change(cell: Cell) -> float | None:
    """Last minus first logged log-probability of the chosen answers: many losses push both answers down."""
    found = logged(cell, "logps/chosen")
    return found[-1][1] - found[0][1] if len(found) > 1 else None


def _cell_values(cell: Cell) -> dict[str, float]:
    values = {name: _last(cell, keys) for name, (keys, _) in FINAL_VALUES.items()}
    values |= {CHANGE: _change(cell)} | {name: _total(cell, keys) for name, (keys, _) in TOTALS.items()}
    return {name: value for name, value in values.items() if value is not None}


def final_values(row: Variant) -> dict[str, float]:
    """Mean over the seeds that have it of each final value."""
    per_cell = [_cell_values(cell) for cell in row.cells if cell.record.get("train")]
    names = dict.fromkeys(name for values in per_cell for name in values)
    return {name: float(np.mean([values[name] for values in per_cell if name in values])) for name in names}


def training_table(rows: Sequence[Variant], caption: str) -> Table | None:
    """The final values of all trained methods of one model and task; None where nothing was logged."""
    digits = {name: shown for name, (_, shown) in {**FINAL_VALUES, **TOTALS}.items()} | {CHANGE: 2}
    trained = [(row, values) for row in rows if (values := final_values(row))]
    if not trained:
        return None
    order = [*FINAL_VALUES, CHANGE, *TOTALS]
    names = [name for name in order if any(name in values for _, values in trained)]
    body = []
    for row, values in trained:
        numbers = (
            Entry(text=number(values[name], digits[name])) if name in values else missing(())
            for name in names
        )
        body.append((Entry(text=row.label), *numbers))
    notes = ("Last logged values, mean over seeds; a dash where the method logs no such value.",)
    return Table(caption=caption, header=("method", *names), rows=tuple(body), notes=notes)


def training_records(rows: Sequence[Variant]) -> Iterator[dict[str, Any]]:
    """One record a run, for the CSV."""
    for row in rows:
        for cell in row.cells:
            values = _cell_values(cell) if cell.record.get("train") else {}
            if values:
                yield {
                    "model": cell.model,
                    "task": cell.task,
                    "method": row.label,
                    "seed": cell.seed,
                    **values,
                }


def curves(rows: Sequence[Variant], key: str) -> tuple[Curve, ...]:
    """The curve of one logged value for every run that has one."""
    result = []
    for row in rows:
        for cell in row.cells:
            found = logged(cell, key)
            if found:
                steps, values = zip(*found, strict=True)
                result.append(Curve(label=row.label, seed=cell.seed, steps=steps, values=values))
    return tuple(result)
