"""Warnings: what a reader must know before believing a number of this report."""

from collections.abc import Mapping, Sequence

from reports.columns import Column
from reports.comparison import ALPHA
from reports.main_table import place
from reports.results import Cell, Experiment
from reports.segment_details import truncated


def judges(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    """Metrics that also built the training pairs: methods were trained towards them."""
    used = {str(cell.record["pairs_scorer"]) for cell in cells if cell.record.get("pairs_scorer")}
    measured = {column.metric for column in columns}
    return [
        f"{metric} built the training pairs, so a gain in {metric} is partly what was trained for; "
        "believe the other metrics first."
        for metric in sorted(used & measured)
    ]


def cut_inputs(cells: Sequence[Cell], test: str, where: str) -> list[str]:
    """Metrics that read only a part of some inputs, because a model takes no more."""
    counts: dict[str, list[int]] = {}
    for cell in cells:
        for metric, score in cell.tests[test].scores.items() if test in cell.tests else ():
            counts.setdefault(metric, []).append(truncated(score))
    return [
        f"{where}: {metric} read only a part of {sum(found)} inputs, longer than its model takes "
        f"(at most {max(found)} in one run)."
        for metric, found in counts.items()
        if sum(found)
    ]


def licences(columns: Sequence[Column]) -> list[str]:
    """Metrics whose models may not be used for everything."""
    return sorted(
        {f"{each.metric}: licence {each.licence}, which restricts use." for each in columns if each.licence}
    )


def coupled(cells: Sequence[Cell]) -> list[str]:
    """Methods whose loss depends on a micro-batch as a whole, so that its size is a hyperparameter."""
    sizes: dict[str, set[int]] = {}
    for cell in cells:
        train = cell.record.get("train") or {}
        if train.get("batch_coupled"):
            each = train["training"]["per_device_batch_size"]
            sizes.setdefault(str(cell.record["method_name"]), set()).add(each)
    return [
        f"{name}: the loss of one example depends on its micro-batch (here of "
        f"{' or '.join(map(str, sorted(found)))}), so that size is a hyperparameter."
        for name, found in sorted(sizes.items())
    ]


def overlaps(experiment: Experiment) -> list[str]:
    """Test rows that the training data has too."""
    return [
        f"{where}: {count} test rows also occur in the {split} data."
        for where, splits in experiment.overlaps.items()
        for split, count in splits.items()
        if isinstance(count, int) and count > 0
    ]


def left_out(experiment: Experiment) -> list[str]:
    """Training rows that nobody learnt from."""
    lines = []
    for where, counts in experiment.left_out.items():
        reasons = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items() if kind != "rows")
        lines.append(f"{where}: {counts['rows']} rows were used; left out: {reasons}.")
    return lines


def _cells(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} cells, as {names[0]}"


def _differing(records: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Lines for each key that is not the same in all records: each value with who has it."""
    lines = []
    for key in dict.fromkeys(key for record in records.values() for key in record):
        owners: dict[str, list[str]] = {}
        for owner, record in records.items():
            owners.setdefault(str(record.get(key, "not recorded")), []).append(owner)
        if len(owners) > 1:
            parts = (f"{value} ({_cells(names)})" for value, names in owners.items())
            lines.append(f"{key}: {'; '.join(parts)}")
    return lines


def mixtures(cells: Sequence[Cell], test: str, where: str) -> list[str]:
    """Outputs of one table that were made with different versions, backends, number formats or settings."""
    records: dict[str, Mapping[str, object]] = {}
    of_others: list[str] = []
    for cell in cells:
        if test in cell.tests:
            made = cell.tests[test].generation
            if made.get("backend") == "files":  # nothing is recorded of them that could be compared
                of_others.append(cell.method)
                continue
            plain = {key: made.get(key) for key in ("backend", "device", "dtype")}
            settings = {f"decoding {key}": value for key, value in (made.get("settings") or {}).items()}
            records[cell.name] = plain | settings | (made.get("versions") or {})
    lines = [f"{where}: generated under different conditions; {line}." for line in _differing(records)]
    if of_others:
        lines.append(
            f"{where}: outputs of other systems, made under unknown conditions: {', '.join(of_others)}."
        )
    return lines


def postprocessed(cells: Sequence[Cell], where: str) -> list[str]:
    """What was done to outputs before they were scored; stored texts are as they were generated."""
    found = dict.fromkeys(
        ", ".join(cell.record["postprocess"]) for cell in cells if cell.record.get("postprocess")
    )
    return [f"{where}: outputs were scored after post-processing: {names}." for names in found]


def training_mixtures(cells: Sequence[Cell], where: str) -> list[str]:
    """Models of one table that were trained with different versions or on different devices."""
    records = {
        cell.name: {"device": cell.training.get("device")} | cell.training["versions"]
        for cell in cells
        if cell.training.get("versions")
    }
    return [f"{where}: trained under different conditions; {line}." for line in _differing(records)]


def single_seeds(columns: Sequence[Column]) -> list[str]:
    """Rows with one run, and baselines with one run that stand against methods with more."""
    lines = []
    trained = [row for row in columns[0].rows if None not in row.values]  # outputs of others have no seed
    single = [row.variant.label for row in trained if len(row.values) == 1 and not row.is_baseline]
    if single:
        lines.append(
            f"{place(columns[0])}: one seed only for {', '.join(single)}; "
            "another training run may turn the difference around."
        )
    base = next((row for row in columns[0].rows if row.is_baseline), None)
    if base and len(base.values) == 1:
        lines.append(
            f"{place(columns[0])}: the baseline {base.variant.label} has one seed; "
            "all differences share its luck."
        )
    return lines


def _gains(columns: Sequence[Column], index: int) -> list[tuple[str, float, float]]:
    """(metric, gain, Holm p) of one row, gains positive where better."""
    found = []
    for column in columns:
        comparison = column.rows[index].comparison
        if comparison:
            sign = 1 if column.higher_is_better else -1
            found.append((column.metric, sign * comparison.difference, comparison.p_holm))
    return found


def disagreements(columns: Sequence[Column]) -> list[str]:
    """Methods that one metric calls better, with significance, and another worse."""
    lines = []
    for index, row in enumerate(columns[0].rows):
        gains = _gains(columns, index)
        sure_up = [name for name, gain, p in gains if gain > 0 and p < ALPHA]
        sure_down = [name for name, gain, p in gains if gain < 0 and p < ALPHA]
        up = [name for name, gain, _ in gains if gain > 0]
        down = [name for name, gain, _ in gains if gain < 0]
        if (sure_up and down) or (sure_down and up):
            lines.append(
                f"{place(columns[0])}: the metrics disagree about {row.variant.label}: "
                f"better in {', '.join(up)}, worse in {', '.join(down)}."
            )
    return lines


def refusals(columns: Sequence[Column]) -> list[str]:
    """Scores that were left out of a column because they do not measure the same."""
    return [
        f"{place(column)}, {column.metric}: not comparable and left out: {line}."
        for column in columns
        for line in column.refused
    ]
