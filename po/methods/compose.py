"""Methods made of methods: with a moving reference, weighted by the policy's confidence, or summed.

    resolve("tr_dpo(ipo)"), resolve("wpo(simpo)"), resolve("mix(dpo, bco_pair, sft)")

Each is a method like any other: its loss has a signature put together from those of its parts, from which
inputs, hyperparameters and defaults follow.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from po.methods.hyperparameters import MethodError, ParamValue, Range, nearest
from po.methods.logp_rules import TOKEN_RULES
from po.methods.method import Method
from po.methods.mixture import Part

MAX_WEIGHT = Range(0, float("inf"), "weight", low_open=True)
PART_WEIGHT = Range(0, float("inf"), "weight")


def synced(base: Method, name: str | None = None) -> Method:
    """A method whose reference moves towards the policy during training.

    Every ``sync_steps`` optimizer steps: reference ← sync_mix·policy + (1 - sync_mix)·reference.

    Args:
        base: any method with a reference.
        name: of the result; ``tr_dpo(<base>)`` unless given.

    Raises:
        MethodError: the base has no reference, or it moves already.

    Source: Gorbatovski et al. 2024, arXiv:2404.09656.
    """
    if not base.needs_reference or base.reference_sync:
        raise MethodError(f"tr_dpo({base.name}): tr_dpo moves a fixed reference, and {base.name} has none.")
    return dataclasses.replace(
        base,
        name=name or f"tr_dpo({base.name})",
        paper="Gorbatovski et al. 2024, arXiv:2404.09656",
        formula=f"{base.formula}; every sync_steps: ref ← sync_mix·policy + (1 - sync_mix)·ref",
        reference_sync=True,
        parts=(base,),
    )


def weighted(base: Method, name: str | None = None) -> Method:
    """A method whose pairs count the more the likelier the policy would sample them itself.

    With the averaged log-probabilities m, and q the mean over tokens of log Σ p(v)² under the policy, the
    weight is min(max_weight, exp((m_w - q_w) + (m_l - q_l))), detached. TRL has no maximum.

    Args:
        base: a paired method that returns one loss per pair and sums or averages log-probabilities.
        name: of the result; ``wpo(<base>)`` unless given.

    Raises:
        MethodError: the base is a method of another kind.

    Source: Zhou et al. 2024 (WPO), arXiv:2406.11827.
    """
    if "max_weight" in base.ranges:
        raise MethodError(f"wpo({base.name}): {base.name} weighs its pairs already.")
    if base.data != "paired" or not base.per_example or base.logps in TOKEN_RULES:
        raise MethodError(f"wpo({base.name}): wpo weighs pairs, and {base.name} has no plain loss for each.")
    weighing = ("policy_chosen_mean", "policy_rejected_mean", "chosen_collision", "rejected_collision")

    def loss(*, max_weight: float = 1.0, **given: Any) -> Tensor:
        """The weighted losses.

        Args:
            max_weight: the largest weight that a pair can have.
            given: inputs and hyperparameters of the base, log-probabilities in nats.

        Returns:
            One loss per pair, not reduced.

        Source: Zhou et al. 2024, arXiv:2406.11827.
        """
        losses = base.loss(**{key: given[key] for key in (*base.inputs, *base.defaults)})
        chosen, rejected, chosen_collision, rejected_collision = (given[key].detach() for key in weighing)
        weight = torch.exp((chosen - chosen_collision) + (rejected - rejected_collision))
        return weight.clamp(max=max_weight) * losses

    return dataclasses.replace(
        base,
        name=name or f"wpo({base.name})",
        loss=with_signature(
            loss, (*base.inputs, *weighing), {**base.defaults, "max_weight": 1.0}, optional=base.when
        ),
        ranges={**base.ranges, "max_weight": MAX_WEIGHT},
        formula=f"w·({base.formula}), w = min(max_weight, exp(m_w - q_w + m_l - q_l))",
        paper="Zhou et al. 2024, arXiv:2406.11827",
        parts=(base,),
    )


def mixed(
    bases: Sequence[Method],
    name: str | None = None,
    defaults: Mapping[str, ParamValue] | None = None,
    paper: str = "a weighted sum",
) -> Method:
    """The weighted sum of paired losses, from one forward pass.

    A hyperparameter ``beta`` of the part ``dpo`` is called ``dpo_beta``, its weight ``dpo_weight``. One
    ``nll_reduction`` holds for all parts.

    Args:
        bases: paired methods, or ``sft``; each once.
        name: of the result; ``mix(<bases>)`` unless given.
        defaults: other defaults than those of the parts, and the weights (1 each unless given).
        paper: where the sum comes from.

    Raises:
        MethodError: a part is no paired method with one loss per pair, stands there twice, or two parts
            remember something.
    """
    name = name or f"mix({', '.join(base.name for base in bases)})"
    _check_parts(name, bases)
    parts = [Part(base) for base in bases]
    presets = {f"{base.name}_{key}": value for base in bases for key, value in base.presets.items()}
    changed = presets | dict(defaults or {})
    hyperparameters: dict[str, Any] = {part.weight: 1.0 for part in parts}
    for part in parts:
        hyperparameters |= part.defaults
    options = {key for part in parts for key in part.state_options()}
    unknown = sorted(set(changed) - set(hyperparameters) - options)
    if unknown:
        raise MethodError(f"{name} has no parameter '{unknown[0]}'{nearest(unknown[0], hyperparameters)}")
    hyperparameters |= {key: value for key, value in changed.items() if key not in options}

    when = {key: value for part in parts for key, value in part.when.items()}

    def loss(**given: Any) -> Tensor:
        """The weighted sum.

        Args:
            given: inputs of all parts, log-probabilities in nats; their hyperparameters and weights.

        Returns:
            One loss per pair, not reduced.

        Source: that of each part.
        """
        return torch.stack([given[part.weight] * part.loss(given) for part in parts]).sum(dim=0)

    return Method(
        name=name,
        loss=with_signature(loss, (key for part in parts for key in part.inputs), hyperparameters, when),
        logps="sum",
        ranges={p.weight: PART_WEIGHT for p in parts} | {k: v for p in parts for k, v in p.ranges.items()},
        formula=" + ".join(f"{part.weight}·{part.method.name}" for part in parts),
        paper=paper,
        rewards=next((part.rewards for part in parts if part.method.rewards is not None), None),
        batch_coupled=any(base.batch_coupled for base in bases),
        parts=tuple(bases),
        when=when,
        state=next((part.state(changed) for part in parts if part.method.state is not None), None),
    )


def _check_parts(name: str, bases: Sequence[Method]) -> None:
    for base in bases:
        if not base.name.isidentifier():
            raise MethodError(
                f"{name}: the parts of a sum are methods of the table; {base.name} is put together."
            )
        usable = base.data in ("paired", "supervised") and base.per_example and not base.reference_sync
        if not usable or base.logps in TOKEN_RULES:
            raise MethodError(f"{name}: {base.name} cannot be part of a sum of losses of pairs.")
        if sum(other.name == base.name for other in bases) > 1:
            raise MethodError(f"{name}: {base.name} stands there twice; give it one weight.")
    if all(base.data == "supervised" for base in bases):
        raise MethodError(f"{name}: a mixture needs a method that compares chosen and rejected completions.")
    remembering = [base.name for base in bases if base.state is not None]
    if len(remembering) > 1:
        raise MethodError(f"{name}: {' and '.join(remembering)} both keep a state; mix at most one of them.")


def with_signature(
    loss: Callable[..., Tensor],
    inputs: Iterable[str],
    defaults: Mapping[str, Any],
    optional: Iterable[str] = (),
) -> Callable[..., Tensor]:
    """Gives a function of keyword arguments the signature from which a method derives what it needs.

    Args:
        loss: takes all inputs and hyperparameters by name.
        inputs: names of the tensors.
        defaults: the hyperparameters with their defaults.
        optional: inputs that may be missing; the loss then gets None.

    Returns:
        A function that may leave hyperparameters to their defaults.
    """
    defaults = dict(defaults)
    missing, empty = set(optional), inspect.Parameter.empty
    # those that may be missing come last: a parameter without a default may not follow one with
    names = sorted(dict.fromkeys(inputs), key=lambda name: name in missing)
    positional = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None if name in missing else empty
        )
        for name in names
    ]
    keywords = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in defaults.items()]
    signature = inspect.Signature([*positional, *keywords])

    def signed(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return loss(**bound.arguments)

    signed.__signature__ = signature  # type: ignore[attr-defined]
    signed.__name__, signed.__doc__ = loss.__name__, loss.__doc__
    return signed
