"""The report's first sentence: what was found, in words that follow from the numbers."""

from collections.abc import Sequence

from reports.columns import Column, Row
from reports.main_table import place
from reports.results import Experiment
from reports.tables import decimals, number, p_value


def _gain(row: Row) -> float:
    return row.comparison.difference if row.comparison else 0.0


def _best_sentence(column: Column, better: Sequence[Row], baseline: str) -> str:
    sign = 1 if column.higher_is_better else -1
    best = max(better, key=lambda row: sign * _gain(row))
    verb = "raises" if column.higher_is_better else "lowers"
    size = number(abs(_gain(best)), decimals(column.unit))
    seeds = "both seeds" if len(best.values) == 2 else f"all {len(best.values)} seeds"
    p = p_value(best.comparison.p_holm) if best.comparison else ""
    relation = "" if p.startswith("<") else "= "
    evidence = f"(Holm p {relation}{p}, {seeds})"
    return f"{best.variant.label} {verb} {column.metric} by {size} {evidence} over {baseline}"


def _rest(compared: Sequence[Row]) -> list[str]:
    """How many of the compared methods got each of the other verdicts."""
    words = [row.comparison.verdict for row in compared if row.comparison]
    total = len(words)
    labels = {
        "worse": ("is worse", "are worse"),
        "no difference shown": ("shows no difference", "show no difference"),
        "seeds disagree": ("differs, but its seeds disagree", "differ, but their seeds disagree"),
        "one seed": ("differs, but with one seed", "differ, but with one seed"),
    }
    return [
        f"{words.count(word)} of {total} methods {forms[words.count(word) > 1]}"
        for word, forms in labels.items()
        if word in words
    ]


def _unfinished(column: Column) -> list[str]:
    """How many methods have no score yet, or those of some seeds; outputs of others are not counted."""
    methods = [
        row
        for row in column.rows
        if not row.is_baseline and any(cell.seed is not None for cell in row.variant.cells)
    ]
    counts = {
        f"no {column.metric} score yet": sum(not row.values for row in methods),
        "scores of some seeds only": sum(0 < len(row.values) < len(row.variant.cells) for row in methods),
    }
    return [
        f"{count} {'method has' if count == 1 else 'methods have'} {what}"
        for what, count in counts.items()
        if count
    ]


def sentence(column: Column, baseline: str) -> str:
    """The finding of one column, on its methods; outputs of others stand in the tables only."""
    compared = [row for row in column.rows if row.comparison and set(row.values) != {None}]
    if not compared:
        found = f"nothing can be compared: no scored method beside a scored {baseline}"
        return f"On {place(column)}, {'; '.join([found, *_unfinished(column)])}."
    better = [row for row in compared if row.comparison and row.comparison.verdict == "better"]
    parts = _rest(compared)
    if better:
        parts.insert(0, _best_sentence(column, better, baseline))
        others = len(better) - 1
        if others:
            parts.insert(1, f"{others} other {'method is' if others == 1 else 'methods are'} better too")
    else:
        parts.insert(0, f"no method is shown to be better than {baseline} in {column.metric}")
    return f"On {place(column)}, {'; '.join([*parts, *_unfinished(column)])}."


def answers(tables: Sequence[Sequence[Column]], metric: str | None, baseline: str) -> tuple[str, ...]:
    """One sentence for each table, by the metric the manifest selects by, else by its first."""
    chosen = (
        next((column for column in columns if column.metric == metric), columns[0]) for columns in tables
    )
    return tuple(sentence(column, baseline) for column in chosen)


def progress(experiment: Experiment, n_warnings: int) -> str:
    """How much of the grid stands behind the report, and how many warnings it carries."""
    done = sum(cell.state == "done" for cell in experiment.cells)
    total = len(experiment.cells)
    cells = (
        f"All {total} cells are done."
        if done == total
        else f"{done} of {total} cells are done; see Coverage."
    )
    warnings = {0: "No warnings.", 1: "One warning stands at the end."}
    return f"{cells} {warnings.get(n_warnings, f'{n_warnings} warnings stand at the end.')}"
