"""Metrics of a manifest: those that it defines, the names that may stand for metrics, faults of both."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.faults import EvalError
from eval.metrics import SETS, Metric, default_metrics, expand_sets, known_metrics
from experiments.locations import expand, revision_fault, unset_variable
from experiments.problems import Problem, nearest
from experiments.raw_entries import Place, Raw, items

Definitions = Mapping[str, Mapping[str, Any]]


def expanded(value: Any) -> Any:
    """A definition's value with ``${NAME}`` in its texts replaced from the environment.

    Raises:
        KeyError: a variable is not set; names it.
    """
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, Mapping):
        return {key: expanded(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [expanded(each) for each in value]
    return value


def language_of(task_type: str, source_lang: str | None, target_lang: str | None) -> str | None:
    """The language of a task's outputs: the target, or of a summary the source's."""
    return target_lang or (source_lang if task_type == "summarization" else None)


def metric_problems(raw: Raw) -> Iterator[Problem]:
    """Faults of ``metrics``, and of the tasks' and the report's names of metrics."""
    definitions = raw.get("metrics")
    for name, definition in definitions.items() if isinstance(definitions, Mapping) else ():
        yield from _definition(str(name), definition)
    known = known_of(raw)
    for name, task in items(raw, "tasks"):
        yield from _names(task.get("metrics"), ("tasks", name, "metrics"), known)
        yield from _selection(raw, name, task, known)


def known_of(raw: Raw) -> Mapping[str, Metric]:
    """All metrics that a manifest may name; its definitions with faults are left out."""
    found: dict[str, Metric] = dict(known_metrics())
    for name, definition in items(raw, "metrics"):
        if not list(_definition(name, definition)):
            found |= {name: known_metrics({name: expanded(definition)})[name]}
    return found


def _definition(name: str, definition: Any) -> Iterator[Problem]:
    where: Place = ("metrics", name)
    if name in SETS:
        yield Problem(where, f"'{name}' stands for {', '.join(SETS[name])}; define it under another name")
        return
    if variable := _unset(definition):
        message = f"the environment variable {variable} is not set; put {variable}=/path/to/it in front"
        yield Problem(where, f"{message} of the command")
        return
    for key in ("revision", "tokenizer_revision"):
        revision = definition.get(key) if isinstance(definition, Mapping) else None
        if isinstance(revision, str) and (fault := revision_fault(expand(revision))):
            yield Problem((*where, key), fault)
    try:
        known_metrics({name: expanded(definition)})
    except EvalError as error:
        yield Problem(where, str(error).removeprefix(f"metric '{name}': "))


def _unset(value: Any) -> str | None:
    """The first variable in the texts of a value that the environment lacks."""
    if isinstance(value, str):
        return unset_variable(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((name for each in inner if (name := _unset(each))), None)


def _names(names: Any, where: Place, known: Mapping[str, Metric]) -> Iterator[Problem]:
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str):
            for each in expand_sets([name]):
                if each not in known:
                    of_set = f" (of the set '{name}')" if name in SETS else ""
                    message = f"'{each}'{of_set} is no metric; {nearest(each, [*known, *SETS])}"
                    yield Problem((*where, index), message)


def scorer_problems(raw: Raw, scorer: Any, where: Place) -> Iterator[Problem]:
    """Faults of the one metric that candidates are ranked by."""
    known = known_of(raw)
    if isinstance(scorer, str) and scorer not in known:
        what = "is a set of metrics; name one of them" if scorer in SETS else "is no metric"
        yield Problem(where, f"'{scorer}' {what}; {nearest(scorer, SETS.get(scorer, known))}")


def _selection(raw: Raw, name: str, task: Raw, known: Mapping[str, Metric]) -> Iterator[Problem]:
    """The report can select by a metric only where it is measured on a development split."""
    report = raw.get("report")
    select = report.get("select") if isinstance(report, Mapping) else None
    metric = select.get("metric") if isinstance(select, Mapping) else None
    if not isinstance(metric, str):
        return
    where = ("report", "select")
    measured = _measured(task)
    if metric not in known:
        yield Problem((*where, "metric"), f"'{metric}' is no metric; {nearest(metric, known)}")
    elif measured is not None and metric not in measured:
        message = f"'{metric}' is not measured in task '{name}'; {nearest(metric, measured)}"
        yield Problem((*where, "metric"), message)
    if task.get("data") is None and task.get("dev") is None:
        message = f"hyperparameters are chosen on the split dev, and task '{name}' has none; give it dev"
        yield Problem(where, message)


def _measured(task: Raw) -> Sequence[str] | None:
    """Names of a task's metrics; None where its type is none."""
    names = task.get("metrics")
    if isinstance(names, list):
        return expand_sets(str(name) for name in names)
    if task.get("type") in ("translation", "summarization"):
        return default_metrics(str(task["type"]), str(task.get("target_lang")))
    return None
