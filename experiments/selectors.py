"""``when`` of a manifest and ``--only`` of the command line: the same words, the same matching."""

import operator
from collections.abc import Mapping
from typing import Any

from experiments.identity import canonical

KEYS = ("model", "task", "method", "seed", "stage")
_COMPARE = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}


def condition_fault(key: str, condition: Any) -> str | None:
    """What is wrong with one condition of a ``when``, or None."""
    if key not in KEYS and not key.startswith("params."):
        return f"'{key}' cannot be matched; known: {', '.join(KEYS)}, params.<name>."
    if isinstance(condition, Mapping):
        unknown = sorted(set(condition) - set(_COMPARE))
        if unknown or not condition:
            return f"{dict(condition)} is no condition; give a value, a list of values, or lt, le, gt, ge with a number"
    return None


def matches(when: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether every condition holds; a fact that is absent matches nothing.

    Args:
        when: key -> value, list of values, or {lt, le, gt, ge: number}.
        facts: key -> value; hyperparameters as ``params.<name>``.
    """
    return all(key in facts and _holds(condition, facts[key]) for key, condition in when.items())


def _holds(condition: Any, value: Any) -> bool:
    if isinstance(condition, Mapping):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and all(_COMPARE[name](value, bound) for name, bound in condition.items())
    if isinstance(condition, (list, tuple)):
        return any(_holds(one, value) for one in condition)
    return bool(canonical(condition) == canonical(value))


def parse_only(text: str) -> dict[str, Any]:
    """``method=dpo,model=tiny`` as a ``when``; a key given twice means either value.

    Raises:
        ValueError: a part without ``=`` or an unknown key.
    """
    when: dict[str, list[Any]] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        fault = condition_fault(key, value) if equals else f"'{part}' is not of the form key=value"
        if fault:
            raise ValueError(f"--only: {fault}")
        when.setdefault(key, []).append(_number_or_text(value))
    return dict(when)


def _number_or_text(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
