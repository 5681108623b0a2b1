"""Rows of (figure, value, goal, met), as every benchmark may return and print them."""

from collections.abc import Iterable, Sequence
from typing import TextIO

Row = tuple[str, str, str, str]
_TITLES = ("figure", "value", "goal", "met")


def plain(figure: str, value: str) -> Row:
    """A figure without a goal."""
    return figure, value, "", ""


def at_least(figure: str, value: float, goal: float, text: str = "", unit: str = "x") -> Row:
    """A figure that shall reach its goal; ``text`` follows the value."""
    met = "met" if value >= goal else "NOT MET"
    return figure, f"{value:.2f}{unit}{text and f' {text}'}", f">= {goal:g}{unit}", met


def at_most(figure: str, value: float, goal: float) -> Row:
    """A small figure that shall stay below its goal."""
    return figure, f"{value:.1e}", f"<= {goal:g}", "met" if value <= goal else "NOT MET"


def print_table(rows: Iterable[Sequence[str]], file: TextIO | None = None) -> None:
    """Prints rows of two (figure, value) or four entries in columns."""
    filled = [_TITLES, *(tuple(row) + ("",) * (len(_TITLES) - len(row)) for row in rows)]
    widths = [max(len(row[column]) for row in filled) for column in range(len(_TITLES))]
    for row in filled:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), file=file
        )
