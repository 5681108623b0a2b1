"""Faults of a manifest's methods: ids, parents, and the values of hyperparameters."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from experiments.problems import Problem, nearest, offer
from experiments.raw_entries import Place, Raw, is_only_measured, items, unknown_name
from experiments.schema import Training
from po.methods import Method, MethodError, resolve
from po.methods.aliases import ADVICE
from po.methods.hyperparameters import shown

TRAINING_KEYS = frozenset(Training.model_fields)


def method_problems(raw: Raw) -> Iterator[Problem]:
    """Faults of ``methods``."""
    methods = dict(items(raw, "methods"))
    for name, entry in methods.items():
        where: Place = ("methods", name)
        parent = entry.get("from")
        if unknown_name(parent, raw.get("methods")):
            message = f"'{parent}' is no method of this manifest; {nearest(parent, raw['methods'])}"
            yield Problem((*where, "from"), message)
        elif isinstance(parent, str) and methods.get(parent, {}).get("outputs") is not None:
            message = f"'{parent}' has outputs that others made and no weights to start from"
            yield Problem((*where, "from"), f"{message}; start from a method that has a model")
        elif name in ancestors(parent, methods):
            yield Problem((*where, "from"), f"'{name}' starts from itself by way of '{parent}'")
        if is_only_measured(entry):
            continue
        try:
            method = resolve(str(entry.get("method", name)))
        except MethodError as error:
            yield Problem((*where, "method") if "method" in entry else where, str(error))
            continue
        if method.needs_reference and parent is None:
            yield from _has_reference(raw, method, where)
        yield from _parameters(entry, method, where)


def resolved(name: str, entry: Raw) -> Method | None:
    """The method of an entry; None where it is only measured, or names no method."""
    if is_only_measured(entry):
        return None
    try:
        return resolve(str(entry.get("method", name)))
    except MethodError:
        return None


def ancestors(method: Any, methods: Mapping[str, Raw]) -> list[str]:
    """A method and what it starts from, by way of ``from``, as far as the names lead; each once."""
    seen: list[str] = []
    while isinstance(method, str) and method in methods and method not in seen:
        seen.append(method)
        method = methods[method].get("from")
    return seen


def _has_reference(raw: Raw, method: Method, where: Place) -> Iterator[Problem]:
    """Random weights are no reference to hold a model to."""
    for model, entry in items(raw, "models"):
        if entry.get("from_scratch") is not None:
            message = (
                f"{method.name} holds the model to the one it starts from, and '{model}' starts from random"
            )
            yield Problem(where, f"{message} weights; give 'from', such as 'from: sft'")
            return


def _parameters(entry: Raw, method: Method, where: Place) -> Iterator[Problem]:
    params = entry.get("params")
    for key, value in params.items() if isinstance(params, Mapping) else ():
        for problem in _one_parameter(method, str(key), value, (*where, "params", str(key))):
            yield _with_grid(problem, str(key), value)
    for section in ("grid", "zip"):
        yield from _axes(method, entry.get(section), (*where, section))
    yield from _relations(entry, where)
    points = entry.get("list")
    for index, point in enumerate(points if isinstance(points, list) else ()):
        for key, value in point.items() if isinstance(point, Mapping) else ():
            yield from _one_parameter(method, str(key), value, (*where, "list", index, str(key)))


def _with_grid(problem: Problem, key: str, value: Any) -> Problem:
    """The fault of a list where one value belongs says where the list belongs."""
    if not isinstance(value, list) or not value or "has no parameter" in problem.message:
        return problem
    listed = ", ".join(map(shown, value))
    several = f"Several values belong into grid: {{{key}: [{listed}]}}."
    return replace(problem, message=f"{problem.message.removesuffix('.')}. {several}")


def _axes(method: Method, axes: Any, where: Place) -> Iterator[Problem]:
    for key, values in axes.items() if isinstance(axes, Mapping) else ():
        if not isinstance(values, list):
            continue  # the schema says so
        if not values:
            message = "the list is empty, so the method has no cells; give values or leave the key out"
            yield Problem((*where, str(key)), message)
        for index, value in enumerate(values):
            yield from _one_parameter(method, str(key), value, (*where, str(key), index))


def _relations(entry: Raw, where: Place) -> Iterator[Problem]:
    """Zipped lists have one length, and a hyperparameter stands in one place."""
    grid, zipped, params = (entry.get(section) for section in ("grid", "zip", "params"))
    for section, axes in (("grid", grid), ("zip", zipped)):
        both = set(axes) & set(params) if isinstance(axes, Mapping) and isinstance(params, Mapping) else ()
        for key in sorted(map(str, both)):
            yield Problem((*where, section, key), f"'{key}' stands in params and in {section}; keep one")
    if not isinstance(zipped, Mapping):
        return
    lengths = {str(key): len(values) for key, values in zipped.items() if isinstance(values, list)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        yield Problem((*where, "zip"), f"zipped lists must have one length: {listed}")
    for key in grid if isinstance(grid, Mapping) else ():
        if key in zipped:
            yield Problem((*where, "zip", str(key)), f"'{key}' stands in grid and in zip; keep one")


def _one_parameter(method: Method, key: str, value: Any, where: Place) -> Iterator[Problem]:
    if key in TRAINING_KEYS:
        try:
            Training.model_validate({key: value})
        except ValidationError as error:
            yield Problem(where, f"{value!r}: {error.errors()[0]['msg']}")
        return
    try:
        translated, _ = method.canonical({key: value})
        if set(translated) <= set(method.rules):
            method.check_params(translated)
            return
    except MethodError as error:
        yield Problem(where, str(error))
        return
    known = ", ".join(method.rules) or "none"
    rest = offer(key, [*method.rules, *TRAINING_KEYS], f"it has: {known}; and every key of training.")
    message = f"{method.name} has no parameter '{key}'; {rest}"
    advice = f" {ADVICE[key]}" if key in ADVICE else ""
    yield Problem(where, message + advice)
