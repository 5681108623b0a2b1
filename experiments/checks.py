"""Faults that a schema cannot see: names that must exist elsewhere, values that a method allows, batches that divide.

Works on the raw data, so that these faults are reported together with the schema's even where an entry is malformed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.metrics import METRICS
from experiments.generators import GENERATORS
from experiments.problems import Problem, nearest
from experiments.schema import Generation, Training
from experiments.selectors import condition_fault
from po.methods import Method, resolve

Raw = Mapping[str, Any]
_VARIABLE = re.compile(r"\$\{(\w+)\}")
TRAINING_KEYS = frozenset(Training.model_fields)


def expand(text: str) -> str:
    """The text with ``${NAME}`` replaced from the environment; KeyError names a variable that is not set."""
    return _VARIABLE.sub(lambda found: os.environ[found.group(1)], text)


def is_local(dataset: str) -> bool:
    """Whether a data set's name is a file of this machine (by its ending) and not an id on a hub."""
    return dataset.endswith((".jsonl", ".json", ".csv", ".parquet"))


def find_problems(raw: Any) -> list[Problem]:
    """All faults of names, values and files in a manifest's raw data."""
    if not isinstance(raw, Mapping):
        return [Problem((), "a manifest is a mapping of name, models, tasks, methods, seeds, ...")]
    return [
        *_methods(raw),
        *_tasks(raw),
        *_batches(raw),
        *_conditions(raw),
        *_report(raw),
        *_pairs_exist(raw),
    ]


def _items(raw: Any, key: str) -> list[tuple[str, Raw]]:
    section = raw.get(key) if isinstance(raw, Mapping) else None
    return [(str(k), v) for k, v in section.items() if isinstance(v, Mapping)] if isinstance(section, Mapping) else []


def _methods(raw: Raw) -> Iterator[Problem]:
    methods = dict(_items(raw, "methods"))
    names = raw.get("methods")
    for name, entry in methods.items():
        where = ("methods", name)
        parent = entry.get("from")
        if parent is not None and isinstance(names, Mapping) and parent not in names:
            yield Problem((*where, "from"), f"'{parent}' is no method of this manifest; {nearest(parent, names)}")
        elif _in_a_circle(name, methods):
            yield Problem((*where, "from"), f"'{name}' starts from itself by way of '{parent}'")
        if entry.get("train") is False:
            continue
        method_id = entry.get("method", name)
        try:
            method = resolve(str(method_id))
        except ValueError as error:
            yield Problem((*where, "method") if "method" in entry else where, str(error))
            continue
        yield from _parameters(entry, method, where)


def _in_a_circle(name: str, methods: Mapping[str, Raw]) -> bool:
    seen, at = set(), methods[name].get("from")
    while isinstance(at, str) and at in methods and at not in seen:
        if at == name:
            return True
        seen.add(at)
        at = methods[at].get("from")
    return False


def _parameters(entry: Raw, method: Method, where: tuple[str, ...]) -> Iterator[Problem]:
    params = entry.get("params")
    if isinstance(params, Mapping):
        for key, value in params.items():
            yield from _one_parameter(method, str(key), value, (*where, "params", str(key)))
    for section in ("grid", "zip"):
        axes = entry.get(section)
        lengths = {}
        for key, values in axes.items() if isinstance(axes, Mapping) else ():
            if not isinstance(values, list):
                continue  # the schema says so
            lengths[key] = len(values)
            if not values:
                yield Problem((*where, section, key), "the list is empty, so the method has no cells; give values or leave the key out")
            for index, value in enumerate(values):
                yield from _one_parameter(method, str(key), value, (*where, section, str(key), index))
        if section == "zip" and len(set(lengths.values())) > 1:
            listed = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            yield Problem((*where, "zip"), f"zipped lists must have one length: {listed}")
    for index, point in enumerate(entry.get("list") or ()):
        for key, value in point.items() if isinstance(point, Mapping) else ():
            yield from _one_parameter(method, str(key), value, (*where, "list", index, str(key)))


def _one_parameter(method: Method, key: str, value: Any, where: tuple[str | int, ...]) -> Iterator[Problem]:
    if key in TRAINING_KEYS:
        try:
            Training.model_validate({key: value})
        except ValueError as error:
            first = error.errors()[0]["msg"] if hasattr(error, "errors") else str(error)
            yield Problem(where, f"{value!r}: {first}")
        return
    try:
        params, _ = method.canonical({key: value})
        method.check_params(params)
    except (ValueError, TypeError) as error:
        yield Problem(where, str(error))


def _tasks(raw: Raw) -> Iterator[Problem]:
    for name, task in _items(raw, "tasks"):
        where = ("tasks", name)
        yield from _metric_names(task.get("metrics"), (*where, "metrics"))
        pairs = task.get("pairs")
        if isinstance(pairs, Mapping):
            yield from _metric_names([pairs.get("scorer", "chrf")], (*where, "pairs", "scorer"))
            methods = raw.get("methods")
            parent = pairs.get("from", "sft")
            if isinstance(methods, Mapping) and parent not in methods:
                yield Problem((*where, "pairs", "from"), f"'{parent}' is no method of this manifest; {nearest(parent, map(str, methods))}")
        data = task.get("data")
        if isinstance(data, Mapping) and isinstance(data.get("generator"), str) and data["generator"] not in GENERATORS:
            yield Problem((*where, "data", "generator"), f"'{data['generator']}' is no generator; {nearest(data['generator'], GENERATORS)}")
        for split in ("sft", "train", "dev"):
            yield from _source(task.get(split), (*where, split))
        for test, source in _items(task, "tests"):
            yield from _source(source, (*where, "tests", test))
        yield from _prompt(task.get("prompt"), (*where, "prompt"))


def _metric_names(names: Any, where: tuple[str, ...]) -> Iterator[Problem]:
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if name not in METRICS:
            yield Problem(where if len(names) == 1 else (*where, index), f"'{name}' is no metric; {nearest(name, METRICS)}")


def _source(source: Any, where: tuple[str, ...]) -> Iterator[Problem]:
    if not isinstance(source, Mapping) or not isinstance(source.get("dataset"), str):
        return
    where = (*where, "dataset")
    try:
        dataset = expand(source["dataset"])
    except KeyError as error:
        name = error.args[0]
        yield Problem(where, f"the environment variable {name} is not set; run with {name}=/path/to/data in front of the command")
        return
    if is_local(dataset) and not Path(dataset).is_file():
        yield Problem(where, f"there is no file '{dataset}' (seen from {Path.cwd()})")


def _prompt(prompt: Any, where: tuple[str, ...]) -> Iterator[Problem]:
    if isinstance(prompt, str) and "{{" not in prompt and not Path(prompt).is_file():
        yield Problem(where, f"'{prompt}' is neither a file nor a template (a template contains '{{{{ source }}}}')")


def _batches(raw: Raw) -> Iterator[Problem]:
    base = raw.get("training") if isinstance(raw.get("training"), Mapping) else {}
    assert isinstance(base, Mapping)
    yield from _divides(base, {}, ("training", "global_batch_size"))
    for name, entry in _items(raw, "methods"):
        params = entry.get("params")
        if isinstance(params, Mapping) and {"global_batch_size", "per_device_batch_size"} & set(params):
            yield from _divides(base, params, ("methods", name, "params"))


def _divides(base: Raw, own: Raw, where: tuple[str, ...]) -> Iterator[Problem]:
    defaults = Training()
    total = own.get("global_batch_size", base.get("global_batch_size", defaults.global_batch_size))
    each = own.get("per_device_batch_size", base.get("per_device_batch_size", defaults.per_device_batch_size))
    if isinstance(total, int) and isinstance(each, int) and each > 0 and total % each:
        yield Problem(where, f"global_batch_size {total} is not divisible by per_device_batch_size {each}")


def _conditions(raw: Raw) -> Iterator[Problem]:
    resources = raw.get("resources")
    sections: list[tuple[tuple[str, ...], Any]] = [(("overrides",), raw.get("overrides")), (("exclude",), raw.get("exclude"))]
    if isinstance(resources, Mapping):
        sections.append((("resources", "rules"), resources.get("rules")))
    for where, rules in sections:
        for index, rule in enumerate(rules if isinstance(rules, list) else ()):
            if not isinstance(rule, Mapping):
                continue
            when = rule.get("when")
            for key, condition in when.items() if isinstance(when, Mapping) else ():
                fault = condition_fault(str(key), condition)
                if fault:
                    yield Problem((*where, index, "when", str(key)), fault)
                elif key in ("model", "task", "method"):
                    yield from _names_exist(raw, str(key), condition, (*where, index, "when", str(key)))
            if where == ("overrides",):
                yield from _override_keys(rule.get("set"), (*where, index, "set"))


def _names_exist(raw: Raw, key: str, condition: Any, where: tuple[str | int, ...]) -> Iterator[Problem]:
    known = raw.get(f"{key}s")
    for name in condition if isinstance(condition, list) else [condition]:
        if isinstance(known, Mapping) and isinstance(name, str) and name not in known:
            yield Problem(where, f"'{name}' is no {key} of this manifest; {nearest(name, map(str, known))}")


def _override_keys(values: Any, where: tuple[str | int, ...]) -> Iterator[Problem]:
    allowed = {f"training.{key}" for key in TRAINING_KEYS} | {f"generation.{key}" for key in Generation.model_fields}
    for key in values if isinstance(values, Mapping) else ():
        if key not in allowed and not str(key).startswith("params."):
            yield Problem((*where, str(key)), f"'{key}' cannot be set here; {nearest(key, allowed)} Or params.<name>.")


def _report(raw: Raw) -> Iterator[Problem]:
    report, methods = raw.get("report"), raw.get("methods")
    baseline = report.get("baseline", "sft") if isinstance(report, Mapping) else "sft"
    if isinstance(methods, Mapping) and baseline not in methods:
        yield Problem(("report", "baseline"), f"'{baseline}' is no method of this manifest; {nearest(baseline, map(str, methods))}")
    select = report.get("select") if isinstance(report, Mapping) else None
    if isinstance(select, Mapping):
        yield from _metric_names([select.get("metric")], ("report", "select", "metric"))


def _pairs_exist(raw: Raw) -> Iterator[Problem]:
    """Paired methods need pairs from somewhere."""
    methods = [(n, e) for n, e in _items(raw, "methods") if e.get("train") is not False]
    for task_name, task in _items(raw, "tasks"):
        train = task.get("train")
        columns = train.get("columns") if isinstance(train, Mapping) else None
        has_pairs = task.get("pairs") is not None or (isinstance(columns, Mapping) and "chosen" in columns)
        for name, entry in methods:
            try:
                paired = resolve(str(entry.get("method", name))).paired
            except ValueError:
                continue  # reported with the methods
            if paired and not has_pairs:
                message = f"'{name}' learns from pairs, and this task has none; give 'pairs: {{from: sft, ...}}' or columns chosen and rejected"
                yield Problem(("tasks", task_name), message)
