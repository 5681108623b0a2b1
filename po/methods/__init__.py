"""Every method, one entry each.

    from po.methods import METHODS, resolve

    method = resolve("dpo:hinge")                        # METHODS["slic_dpo"]
    values = method.check_params({"beta": 0.2})          # every hyperparameter and option
    loss = method.loss(**inputs, **method.loss_arguments(values))

    resolve("wpo(ipo)"), resolve("tr_dpo(bco_pair)"), resolve("mix(dpo, sft)")

A new method is a function in `po.losses`, an entry in the module of its family and a row of values in the
tests.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from po.methods import composed, divergences, pairwise, pointwise, reference_free, scored, unpaired, weighted
from po.methods.aliases import AMBIGUOUS, METHOD_ALIASES, PRESETS
from po.methods.hyperparameters import MethodError, ParameterError, nearest
from po.methods.method import Method

__all__ = ["METHODS", "Method", "MethodError", "ParameterError", "resolve"]

_FAMILIES = (reference_free, pairwise, divergences, weighted, pointwise, scored, unpaired)

_SIMPLE = {method.name: method for family in _FAMILIES for method in family.ENTRIES}

METHODS: Mapping[str, Method] = MappingProxyType(
    _SIMPLE | {method.name: method for method in composed.presets(_SIMPLE)}
)
"""Every method, by its id."""


def resolve(name: str) -> Method:
    """Finds a method by its id or by a name that another project uses, or puts it together.

    Args:
        name: id or alias, such as ``dpo`` or ``cpo:hinge``, or an expression such as ``wpo(ipo)``.

    Returns:
        The method; its `name` is the id.

    Raises:
        MethodError: the name is unknown, or means several methods, or methods do not go together.
    """
    if name in METHODS:
        return METHODS[name]
    if name in METHOD_ALIASES:
        method = METHODS[METHOD_ALIASES[name]]
        return replace(method, presets=PRESETS[name]) if name in PRESETS else method
    if name in AMBIGUOUS:
        meanings = "; ".join(
            f"'{target}' ({use}{'' if target in METHODS else '; not available here'})"
            for target, use in AMBIGUOUS[name].items()
        )
        raise MethodError(f"'{name}' means more than one method. Write the one that is meant: {meanings}.")
    if (found := composed.composed(name, resolve)) is not None:
        return found
    guess = nearest(name, [*METHODS, *METHOD_ALIASES], most=3)
    raise MethodError(f"Unknown method '{name}'{guess} All of them: python -m po.methods_table")
