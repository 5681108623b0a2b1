"""Print the table of methods that stands in the README.

    python -m po.methods_table

Writes  Markdown to stdout
"""

import sys
from collections.abc import Sequence

from po.hyperparameters import shown
from po.method import LENGTH_NORM, NLL_REDUCTION, Method
from po.methods import METHODS

_HEADER = ("id", "loss of a pair", "reference", "log-probs", "hyperparameters (default; allowed)", "source")

_LEGEND = f"""\
Δ is the log-probability of the chosen completion relative to the reference, less the same of the rejected
one; R is the same without a reference. *log-probs* says whether token log-probabilities are summed or
averaged over the completion; where both stand, the setting `length_norm` ({LENGTH_NORM.bounds()}) chooses.
odds = p / (1 - p), and σ is the logistic function. NLL is the negative log-likelihood of the chosen
completion; the setting `nll_reduction` ({NLL_REDUCTION.bounds()}) of the methods
that have it says over what it is taken. The first value is the default.
"""


def methods_table() -> str:
    """The methods as Markdown: a table with one row each, and a legend of its symbols.

    Returns:
        The text, with a final newline.
    """
    rows = [_HEADER, ("---",) * len(_HEADER), *(_row(method) for method in METHODS.values())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{table}\n\n{_LEGEND}"


def _row(method: Method) -> tuple[str, ...]:
    logps = "mean or sum" if method.length_norm else method.logps
    needs = "yes" if method.needs_reference else "no"
    return f"`{method.name}`", f"`{method.formula}`", needs, logps, _hyperparameters(method), method.paper


def _hyperparameters(method: Method) -> str:
    defaults = method.defaults
    cells = [f"`{name}` ({shown(defaults[name])}; {rule.bounds()})" for name, rule in method.ranges.items()]
    return ", ".join(cells)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the table to stdout.

    Args:
        argv: arguments after the program's name; none is known.

    Returns:
        0, or 2 where an argument was given.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if arguments:
        sys.stderr.write(__doc__ or "")
        return 2
    sys.stdout.write(methods_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
