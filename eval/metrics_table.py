"""Print the table of metrics as Markdown, for the README.

python -m eval.metrics_table
"""

import sys
from collections.abc import Iterable

from eval.metrics import METRICS, Example, Metric

_COLUMNS = ("metric", "what it is", "unit", "needs", "several references", "corpus score", "signature")


def _row(metric: Metric) -> tuple[str, ...]:
    arrow = "↑" if metric.higher_is_better else "↓"
    signature = metric.signatures([Example("1", "Danke!", ("Danke!",), "Thank you!")], "de").corpus
    needs = ", ".join(name for name in ("src", "hyp", "refs") if name in metric.needs)
    return (
        f"`{metric.name}` {arrow}",
        metric.title,
        metric.unit,
        needs,
        metric.several_references,
        metric.corpus_rule,
        f"`{signature}`",
    )


def metric_table(metrics: Iterable[Metric]) -> str:
    """A Markdown table with one row a metric; the arrow says which way is better."""
    rows = [_COLUMNS, tuple("---" for _ in _COLUMNS), *map(_row, metrics)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def main() -> int:
    """Print the table."""
    sys.stdout.write(metric_table(METRICS.values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
