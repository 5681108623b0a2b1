"""Figures as SVG: every dot is one trained model. Safe for colour-blind readers; same input, same bytes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

from reports.columns import Column, Row  # noqa: E402
from reports.main_table import arrow, place  # noqa: E402
from reports.tables import decimals, number  # noqa: E402
from reports.training import CURVES, Curve, curves  # noqa: E402
from reports.variants import Variant  # noqa: E402

# Okabe and Ito 2008; yellow left out, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
VERDICT_COLOURS = {"better": "#009E73", "worse": "#D55E00"}
NEUTRAL = "#4d4d4d"
STYLE = {
    "svg.hashsalt": "preference-suite",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing, its file name without ending, and what it says to someone who cannot see it."""

    name: str
    svg: str
    alt: str
    caption: str


def _svg(figure: Any) -> str:
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # the XML declaration has no place inside a page


def _draw_row(axis: Any, row: Row, height: int) -> None:
    verdict = row.comparison.verdict if row.comparison else ""
    colour = VERDICT_COLOURS.get(verdict, NEUTRAL)
    values = list(row.values.values())
    axis.plot([min(values), max(values)], [height, height], color=colour, linewidth=1)
    axis.scatter(values, [height] * len(values), s=22, facecolors="white", edgecolors=colour, zorder=3)
    axis.scatter([row.mean], [height], s=70, marker="|", linewidths=2.5, color=colour, zorder=4)


def _window(column: Column) -> tuple[float, float]:
    """Least and greatest value to draw; a row far from all others (an untrained model) is left outside.

    Far is more than twice the width that the rows near the median take up.
    """
    means = [row.mean for row in column.rows if row.mean is not None]
    middle = statistics.median(means)
    reach = 10 * statistics.median(abs(mean - middle) for mean in means)
    low, high = _span(column, middle - reach, middle + reach)
    margin = 2 * (high - low)
    return _span(column, low - margin, high + margin)


def _span(column: Column, low: float, high: float) -> tuple[float, float]:
    """Least and greatest seed of the rows whose mean lies between two bounds."""
    inside = [row for row in column.rows if row.mean is not None and low <= row.mean <= high]
    values = [value for row in inside for value in row.values.values()]
    return min(values), max(values)


def _draw_outside(axis: Any, value: str, height: int, *, left: bool) -> None:
    """An arrow at the edge with the value, for a row that lies outside the window."""
    text = f"\N{LEFTWARDS ARROW} {value}" if left else f"{value} \N{RIGHTWARDS ARROW}"
    side = {"x": 0.02, "ha": "left"} if left else {"x": 0.98, "ha": "right"}
    axis.text(y=height, s=text, va="center", color=NEUTRAL, transform=axis.get_yaxis_transform(), **side)


def _draw_column(axis: Any, column: Column) -> None:
    low, high = _window(column)
    for index, row in enumerate(column.rows):
        if row.mean is None:
            continue
        if low <= row.mean <= high:
            _draw_row(axis, row, index)
        else:
            _draw_outside(axis, number(row.mean, decimals(column.unit)), index, left=row.mean < low)
        if row.is_baseline:
            axis.axvline(row.mean, linestyle="--", linewidth=1, color="#0072B2")
    axis.set_title(arrow(column), fontsize=10)
    axis.margins(x=0.12)


def metric_figure(columns: Sequence[Column]) -> Figure:
    """One panel a metric, one line a method: a circle per seed, a bar for the mean, the baseline dashed."""
    rows = len(columns[0].rows)
    with matplotlib.rc_context(STYLE):
        width, height = 1.6 + 2.6 * len(columns), 0.9 + 0.27 * rows
        figure, axes = plt.subplots(1, len(columns), figsize=(width, height), sharey=True, squeeze=False)
        for axis, column in zip(axes[0], columns, strict=True):
            if any(row.mean is not None for row in column.rows):
                _draw_column(axis, column)
        axes[0][0].set_yticks(range(rows), [row.variant.label for row in columns[0].rows])
        axes[0][0].set_ylim(rows - 0.5, -0.5)
        figure.tight_layout()
        svg = _svg(figure)
    where = place(columns[0])
    return Figure(
        name=f"scores.{columns[0].model}.{columns[0].task}.{columns[0].test}",
        svg=svg,
        alt=f"Scores of every method on {where}. " + " ".join(map(_spoken, columns)),
        caption=f"{where}. Circle: one seed. Bar: mean. Dashed: baseline. Green is better, orange worse; "
        "an arrow stands for a value far outside.",
    )


def _spoken(column: Column) -> str:
    digits = decimals(column.unit)
    parts = (f"{row.variant.label} {number(row.mean, digits)}" for row in column.rows if row.mean is not None)
    return f"{column.metric}: {', '.join(parts)}."


def _draw_curves(axis: Any, drawn: Sequence[Curve], styles: dict[str, tuple[str, str]]) -> None:
    labelled: set[str] = set()
    for curve in drawn:
        colour, dash = styles[curve.label]
        label = None if curve.label in labelled else curve.label
        labelled.add(curve.label)
        axis.plot(
            curve.steps, curve.values, color=colour, linestyle=dash, linewidth=1, alpha=0.85, label=label
        )


def curves_figure(rows: Sequence[Variant], model: str, task: str) -> Figure | None:
    """Learning curves of margin and accuracy of the implicit rewards; None where no method logs them."""
    panels = [(key, drawn) for key in CURVES if (drawn := curves(rows, key))]
    if not panels:
        return None
    labels = list(dict.fromkeys(curve.label for _, drawn in panels for curve in drawn))
    styles = {
        label: (COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)])
        for index, label in enumerate(labels)
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.0), squeeze=False)
        for axis, (key, drawn) in zip(axes[0], panels, strict=True):
            _draw_curves(axis, drawn, styles)
            axis.set_title(key, fontsize=10)
            axis.set_xlabel("optimizer step")
        handles, names = axes[0][0].get_legend_handles_labels()
        lines = -(-len(names) // 5)
        figure.legend(handles, names, loc="lower center", ncols=min(5, len(names)), frameon=False, fontsize=8)
        figure.tight_layout(rect=(0, 0.07 * lines, 1, 1))
        svg = _svg(figure)
    ends = ", ".join(
        f"{curve.label} seed {curve.seed} ends at {curve.values[-1]:.3g}" for curve in panels[0][1]
    )
    shown = " and ".join(key for key, _ in panels)
    return Figure(
        name=f"curves.{model}.{task}",
        svg=svg,
        alt=f"Learning curves of {shown} for {model}, {task}. {panels[0][0]}: {ends}.",
        caption=f"{model}, {task}. One thin line a seed, of the rewards that the loss implies.",
    )
