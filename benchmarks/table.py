"""Rows of (figure, value, goal, verdict), as every benchmark may return and print them."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

Row = tuple[str, str, str, str]
DIFFERENT = "DIFFERENT"
_TITLES = ("figure", "value", "goal", "verdict")


def plain(figure: str, value: str) -> Row:
    """A figure without a goal."""
    return figure, value, "", ""


def at_least(figure: str, value: float, goal: float, text: str = "", unit: str = "x") -> Row:
    """A figure that shall reach its goal; ``text`` follows the value."""
    met = "met" if value >= goal else "NOT MET"
    return figure, f"{value:.2f}{unit}{text and f' {text}'}", f">= {goal:g}{unit}", met


def equal_within(figure: str, gap: float, tolerance: float) -> Row:
    """How far two sides are apart that must be equal."""
    return figure, f"{gap:.1e}", f"<= {tolerance:g}", "equal" if gap <= tolerance else DIFFERENT


def identical(figure: str, same: bool) -> Row:
    """Whether two sides are the same that must be."""
    return figure, "yes" if same else "NO", "yes", "equal" if same else DIFFERENT


def greatest(gaps: Iterable[float]) -> float:
    """The greatest of some differences, 0 of none; infinite if one is NaN, which ``max`` may pass over."""
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def print_table(rows: Iterable[Sequence[str]], file: TextIO | None = None) -> None:
    """Prints rows of two (figure, value) or four entries in columns."""
    filled = [_TITLES, *(tuple(row) + ("",) * (len(_TITLES) - len(row)) for row in rows)]
    widths = [max(len(row[column]) for row in filled) for column in range(len(_TITLES))]
    for row in filled:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), file=file
        )


def finish(rows: Sequence[Sequence[str]]) -> int:
    """Prints the table, and on stderr a line that names what is not equal but must be.

    Returns:
        The exit status: 1 where there is such a line. A goal that is missed is no failure.
    """
    print_table(rows)
    found = [f"{row[0]} ({row[1]}, must be {row[2]})" for row in rows if row[-1] == DIFFERENT]
    if found:
        print(f"sides that must be equal are not: {'; '.join(found)}", file=sys.stderr)
    return int(bool(found))


def run(
    measure: Callable[[], Sequence[Sequence[str]]], doc: str | None, argv: Sequence[str] | None = None
) -> int:
    """A benchmark without options as a command: its exit status.

    Args:
        measure: gives the rows.
        doc: is the help.
        argv: of the command line; None for this process's.
    """
    argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        argv
    )
    return finish(measure())
