"""Print the table of metrics as Markdown, for the README; or that of the kinds that can be defined.

python -m eval.metrics_table
python -m eval.metrics_table --kinds
"""

import argparse
import inspect
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from eval.metrics import METRICS, Example, Metric
from eval.metrics.table import KINDS

_COLUMNS = ("metric", "what it is", "unit", "needs", "several references", "corpus score", "signature")
_LANGUAGE = "en"


def _signature(metric: Metric) -> str:
    """The signature for one reference; ``<...>`` stands for what this machine may not have.

    It must not depend on what is installed here, or the README could not hold it.
    """
    if not metric.requirements(_LANGUAGE):
        return metric.signatures([Example("1", "Danke!", ("Danke!",), "Thank you!")], _LANGUAGE).corpus
    pattern = getattr(metric, "signature_pattern", None)
    if pattern is not None:
        return str(pattern)
    models = [each.name for each in metric.requirements(_LANGUAGE) if each.kind == "checkpoint"]
    return "|".join([metric.name, *models, "<versions>"])


def _row(metric: Metric) -> tuple[str, ...]:
    arrow = "↑" if metric.higher_is_better else "↓"
    needs = ", ".join(name for name in ("src", "hyp", "refs") if name in metric.needs)
    return (
        f"`{metric.name}` {arrow}",
        metric.title,
        metric.unit,
        needs,
        metric.several_references,
        metric.corpus_rule,
        f"`{_signature(metric)}`",
    )


def metric_table(metrics: Iterable[Metric]) -> str:
    """A Markdown table with one row a metric; the arrow says which way is better."""
    return _markdown(_COLUMNS, map(_row, metrics))


def kinds_table(kinds: Mapping[str, Callable[..., Metric]]) -> str:
    """A Markdown table with one row a kind: what a definition of it may set, with the defaults."""
    rows = []
    for kind, made in kinds.items():
        parameters = [p for p in inspect.signature(made).parameters.values() if p.name != "name"]
        rows.append((f"`{kind}`", ", ".join(map(_setting, parameters))))
    return _markdown(("kind", "settings"), rows)


def _setting(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return f"**`{parameter.name}`**"
    default = "" if parameter.default is None else f" ({parameter.default})"
    if isinstance(parameter.default, bool):  # by type: 0 equals False
        default = default.lower()
    return f"`{parameter.name}`{default}"


def _markdown(columns: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.metrics_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kinds", action="store_true", help="the kinds of metrics and their settings")
    table = kinds_table(KINDS) if parser.parse_args(argv).kinds else metric_table(METRICS.values())
    sys.stdout.write(f"{table}\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends in silence where nobody reads on, as in ... | head
    sys.exit(main())
