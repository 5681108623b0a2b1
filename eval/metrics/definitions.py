"""Metrics by name: the table's, and those that a manifest or a file defines with settings of its own.

A definition is a mapping with ``kind`` and keyword arguments of that kind's class::

    tldr-reward: {kind: reward, model: OpenAssistant/reward-model-deberta-v3-large-v2}
    comet22: {model: /models/comet22/checkpoints/model.ckpt, sha256: 1f0e...}

Without ``kind`` it changes settings of the metric of that name.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import yaml

from eval.faults import EvalError, unknown_name
from eval.metrics.base import Metric

Definition = Mapping[str, Any]
Kinds = Mapping[str, Callable[..., Metric]]

_VARIABLE = re.compile(r"\$\{(\w+)\}")

_TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def build_metric(
    name: str, definition: Definition, kinds: Kinds, presets: Mapping[str, Definition]
) -> Metric:
    """The metric that a definition describes.

    Args:
        name: of the metric, in files and tables.
        definition: ``kind`` and its settings.
        kinds: classes (or functions) that take ``name`` and settings by keyword.
        presets: definitions that a definition of the same name without ``kind`` changes.

    Raises:
        EvalError: the kind or a setting is unknown, a setting is missing or has a wrong value.
    """
    where = f"metric '{name}'"
    if not isinstance(definition, Mapping):
        raise EvalError(f"{where}: a mapping of kind and settings is needed, found {definition!r}")
    if "kind" not in definition:
        if name not in presets:
            raise EvalError(f"{where}: 'kind' is missing; known kinds: {', '.join(sorted(kinds))}")
        definition = {**presets[name], **definition}
    settings = dict(definition)
    kind = settings.pop("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise EvalError(f"{where}: {unknown_name('kind of metric', kind, kinds)}")
    known = {p.name: p.annotation for p in inspect.signature(kinds[kind]).parameters.values()}
    del known["name"]
    for key, value in settings.items():
        if key not in known:
            raise EvalError(f"{where}: {unknown_name(f'setting of kind {kind!r}', key, known)}")
        _check_type(where, key, value, known[key])
    try:
        return kinds[kind](name=name, **settings)
    except (TypeError, ValueError) as fault:
        raise EvalError(f"{where}: {fault}") from fault


def _check_type(where: str, key: str, value: object, annotation: Any) -> None:
    """Refuse what YAML reads as another type than a setting has; the text "false" is true to Python."""
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not any(_is_of(value, each) for each in types):
        wanted = " or ".join(_TYPES.get(each, "a mapping") for each in types)
        raise EvalError(f"{where}: {key} should be {wanted}, found {value!r} ({type(value).__name__})")


def _is_of(value: object, annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    if kind is Literal:  # the class knows the values
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def with_definitions(
    table: Mapping[str, Metric],
    definitions: Mapping[str, Definition],
    kinds: Kinds,
    presets: Mapping[str, Definition],
) -> dict[str, Metric]:
    """The table with further or changed metrics.

    Raises:
        EvalError: a definition is wrong; the message names it.
    """
    made = {name: build_metric(name, each, kinds, presets) for name, each in definitions.items()}
    return {**table, **made}


def choose(names: Iterable[str], known: Mapping[str, Metric]) -> tuple[Metric, ...]:
    """The metrics with these names, each once.

    Raises:
        EvalError: a name is unknown; the message has the nearest one.
    """
    chosen = {}
    for name in names:
        if name not in known:
            raise unknown_name("metric", name, known)
        chosen[name] = known[name]
    if not chosen:
        raise EvalError(f"no metric was named. Known: {', '.join(known)}.")
    return tuple(chosen.values())


def read_definitions(path: Path) -> dict[str, Definition]:
    """Definitions of a YAML file: a mapping of names to mappings, or a manifest, for its ``metrics``.

    ``${NAME}`` in a text is filled in from the environment, as a manifest's is.

    Raises:
        EvalError: the file is missing, holds something else, or names a variable that is not set.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise EvalError(f"{path}: no such file") from fault
    except OSError as fault:
        raise EvalError(f"{path}: cannot be read ({fault.strerror})") from fault
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise EvalError(f"{path}: {fault}") from fault
    if isinstance(found, dict) and isinstance(found.get("metrics"), dict) and "kind" not in found["metrics"]:
        found = found["metrics"]
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise EvalError(f"{path}: a mapping of metric names to mappings (kind, model, ...) is needed")
    return {str(name): _filled(path, each) for name, each in found.items()}


def _filled(path: Path, value: Any) -> Any:
    """The value with the environment's variables in its texts."""
    if isinstance(value, dict):
        return {key: _filled(path, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(path, each) for each in value]
    if not isinstance(value, str):
        return value
    missing = next((name for name in _VARIABLE.findall(value) if name not in os.environ), None)
    if missing is not None:
        raise EvalError(f"{path}: the environment variable {missing} is not set")
    return _VARIABLE.sub(lambda found: os.environ[found.group(1)], value)
