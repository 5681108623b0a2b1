"""Methods made of other methods: the presets, and the expressions that make new ones."""

import re
from collections.abc import Callable, Mapping

from po.methods.compose import mixed, synced, weighted
from po.methods.hyperparameters import MethodError
from po.methods.method import Method

MPO_PARTS = ("dpo", "bco_pair", "sft")
MPO_DEFAULTS: Mapping[str, float | str] = {
    "dpo_weight": 0.8,
    "bco_pair_weight": 0.2,
    "sft_weight": 1.0,
    "bco_pair_delta_rule": "none",
}
FORMS = "tr_dpo(METHOD), wpo(METHOD), mix(METHOD, METHOD, ...)"

Find = Callable[[str], Method]


def presets(methods: Mapping[str, Method]) -> tuple[Method, ...]:
    """The composed methods that have an id of their own.

    Args:
        methods: the simple ones, by id.
    """
    mpo = "Wang et al. 2024, arXiv:2411.10442"
    found = [synced(methods["dpo"], name="tr_dpo"), weighted(methods["dpo"], name="wpo")]
    if set(MPO_PARTS) <= set(methods):
        parts = [methods[name] for name in MPO_PARTS]
        found.append(mixed(parts, name="mixed_mpo", defaults=MPO_DEFAULTS, paper=mpo))
    return tuple(found)


def composed(expression: str, find: Find) -> Method | None:
    """The method that an expression such as ``wpo(ipo)`` names; None where it is no expression.

    Args:
        expression: ``tr_dpo(M)``, ``wpo(M)`` or ``mix(M, N, ...)``; M may be an expression too.
        find: the method of a name or expression.

    Raises:
        MethodError: the outer word is none of those, or its methods cannot be put together.
    """
    if expression == "mix":
        raise MethodError("'mix' is the sum of several methods; name them: mix(METHOD, METHOD, ...).")
    match = re.fullmatch(r"\s*([\w-]+)\s*\((.*)\)\s*", expression, flags=re.DOTALL)
    if match is None:
        return None
    word, inside = match.group(1), _arguments(match.group(2))
    if word == "mix":
        return mixed([find(argument) for argument in inside])
    if word not in ("tr_dpo", "wpo") or len(inside) != 1:
        raise MethodError(f"'{expression}' is no way to put methods together; there are {FORMS}.")
    base = find(inside[0])
    if base.name == "dpo":
        return find(word)
    return synced(base) if word == "tr_dpo" else weighted(base)


def _arguments(text: str) -> list[str]:
    """The text at its commas outside parentheses."""
    found, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [argument.strip() for argument in found]
