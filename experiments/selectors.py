"""``when`` of a manifest and ``--only`` of the command line: the same words, the same matching."""

import argparse
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.identity import canonical
from experiments.problems import nearest, offer

KEYS = ("model", "task", "method", "seed", "stage")
STAGES = ("prepare", "train", "pairs", "reference", "generate", "score", "report")
_COMPARE = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
_TEXTS = {"model", "task", "method", "stage"}


def condition_fault(key: str, condition: Any) -> str | None:
    """What is wrong with one condition of a ``when``, or None."""
    if key not in KEYS and not key.startswith("params."):
        known = f"known: {', '.join(KEYS)}, params.<name>."
        return f"'{key}' cannot be matched; {offer(key, KEYS, known)}"
    if isinstance(condition, Mapping):
        sound = condition and all(
            name in _COMPARE and _is_number(bound) and math.isfinite(bound)
            for name, bound in condition.items()
        )
        if not sound:
            shown = dict(condition)
            return f"{shown} is no condition; give a value, a list of values, or lt, le, gt, ge with a number"
        return None
    if isinstance(condition, list | tuple):
        if not condition:
            return "an empty list matches nothing; give values or leave the condition out"
        return next((fault for one in condition if (fault := condition_fault(key, one))), None)
    if condition is None or (isinstance(condition, float) and not math.isfinite(condition)):
        return f"{condition} is no value that could be matched"
    if key == "stage" and condition not in STAGES:
        rest = offer(condition, STAGES, f"known: {', '.join(STAGES)}.")
        return f"'{condition}' is no stage; {rest}"
    return None


def matches(when: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether every condition holds; a fact that is absent matches nothing.

    Args:
        when: key -> value, list of values, or {lt, le, gt, ge: number}; without a ``condition_fault``.
        facts: key -> value; hyperparameters as ``params.<name>``.
    """
    return all(key in facts and _holds(condition, facts[key]) for key, condition in when.items())


def _holds(condition: Any, value: Any) -> bool:
    if isinstance(condition, Mapping):
        return _is_number(value) and all(_COMPARE[name](value, bound) for name, bound in condition.items())
    if isinstance(condition, list | tuple):
        return any(_holds(one, value) for one in condition)
    if isinstance(condition, bool) != isinstance(value, bool):
        return False  # True == 1 for Python, but not for a manifest
    return bool(canonical(condition) == canonical(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def add_only(parser: argparse.ArgumentParser) -> None:
    """Adds the option whose value ``parse_only`` reads, for commands that know a study by its folder."""
    parser.add_argument(
        "--only",
        default="",
        metavar="KEY=VALUE,...",
        help="only the matching cells and what they need; keys: model, task, method, seed, stage, params.X",
    )


def parse_only(text: str) -> dict[str, Any]:
    """``method=dpo,model=tiny`` as a ``when``; a key given twice means either value.

    Raises:
        ValueError: a part without ``=``, an unknown key, or a stage that does not exist.
    """
    when: dict[str, list[Any]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, written = (piece.strip() for piece in part.partition("="))
        value = written if key in _TEXTS else _typed(written)
        fault = condition_fault(key, value) if equals else f"'{part}' is not of the form key=value"
        if fault:
            raise ValueError(f"--only: {fault}")
        when.setdefault(key, []).append(value)
    if text.strip() and not when:
        raise ValueError(f"--only: '{text}' says nothing; give key=value, such as method=dpo")
    return dict(when)


def _typed(text: str) -> Any:
    """A seed or a hyperparameter from the command line: a number, true or false, or text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_names(only: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> None:
    """Refuses conditions of ``--only`` that no cell can meet.

    Args:
        only: what ``parse_only`` made.
        facts: of every cell.

    Raises:
        ValueError: a key or a value occurs in no cell; names the nearest that does.
    """
    for key, values in only.items():
        if key == "stage":
            continue
        known = [found[key] for found in facts if key in found]
        if not known:
            keys = {name for found in facts for name in found}
            raise ValueError(f"--only: no cell has '{key}'; {nearest(key, keys)}")
        for value in values:
            if not any(_holds(value, one) for one in known):
                choices = _distinct(known)
                near = choices if isinstance(value, str) else ()
                rest = offer(value, near, f"known: {', '.join(sorted(choices))}.")
                raise ValueError(f"--only: {key}={value} is in no cell; {rest}")


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(canonical(value)) for value in values))
