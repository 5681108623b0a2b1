"""Hyperparameters and options of all methods as fields of a dataclass, under every name they have."""

import keyword
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from po.methods import METHODS
from po.methods.aliases import PARAMETER_ALIASES
from po.methods.hyperparameters import Choice, Rule

_SHOWN = 4


def _rules() -> dict[str, dict[str, Rule]]:
    """Name -> id of each method that understands it -> what it may be."""
    found: dict[str, dict[str, Rule]] = {}
    for method in METHODS.values():
        rules = method.rules
        aliases = {**PARAMETER_ALIASES, **method.parameter_aliases}
        names = {name: name for name in rules} | {
            a: n for a, n in aliases.items() if n in rules and a not in rules
        }
        if {"gamma", "beta"} <= set(rules):
            names["gamma_beta_ratio"] = "gamma"
        for name, canonical in names.items():
            found.setdefault(name, {})[method.name] = rules[canonical]
    return found


KEYWORDS: Mapping[str, Mapping[str, Rule]] = MappingProxyType(_rules())
"""Every name under which some method of the table takes a value -> the methods that do."""


def _kind(rules: Mapping[str, Rule]) -> Any:
    """The type of a field: number, truth value, or word; a name that means several is read as a word."""
    kinds = set()
    for rule in rules.values():
        values = rule.values if isinstance(rule, Choice) else (0.0,)
        kinds |= {type(value) for value in values}
    return kinds.pop() if len(kinds) == 1 else str


def keyword_fields() -> list[tuple[str, Any, Any]]:
    """A field for each of `KEYWORDS`, None by default, as ``dataclasses.make_dataclass`` takes them.

    Words of Python (``lambda``) can be no fields; they are given in ``params``.
    """
    fields = []
    for name, rules in KEYWORDS.items():
        if not keyword.iskeyword(name):
            about = f"Of the methods {_listed(list(rules))}."
            fields.append((name, _kind(rules) | None, field(default=None, metadata={"help": about})))
    return fields


def where_else(name: str) -> str:
    """A phrase that names methods with a hyperparameter, or nothing."""
    return f" Methods with '{name}': {_listed(list(KEYWORDS[name]))}." if name in KEYWORDS else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
