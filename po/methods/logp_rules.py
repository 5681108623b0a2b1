"""Rules that turn token log-probabilities into one number per completion by weighing tokens.

Summing and averaging need only the sum and the count. The rules here look at both completions of a pair and
say how much each token counts; policy and reference are weighed alike.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from po.methods.hyperparameters import Option, Range, Rule

Weigh = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class TokenRule:
    """A rule that weighs tokens.

    Attributes:
        weigh: (lengths, other lengths, generator, options) -> weights.
        ranges: what each option may be.
    """

    weigh: Weigh
    ranges: Mapping[str, Rule]

    @property
    def options(self) -> dict[str, Option]:
        """The options with their defaults, which stand in the signature of `weigh`."""
        parameters = inspect.signature(self.weigh).parameters
        return {name: Option(rule, parameters[name].default) for name, rule in self.ranges.items()}


def shared_length(
    lengths: Int[Tensor, " batch"],
    other: Int[Tensor, " batch"],
    generator: torch.Generator,
    *,
    alpha: float = 0.5,
) -> Float[Tensor, "batch tokens"]:
    """Tokens beyond the length of the shorter completion count less (LD-DPO).

    Args:
        lengths: tokens of these completions.
        other: tokens of the other completions of the pairs.
        generator: not used.
        alpha: what a token beyond counts, in [0, 1]; 1 is the plain sum.

    Returns:
        1 for the first min(lengths, other) tokens, alpha for the rest, 0 behind the end.

    Source: Liu et al. 2024, arXiv:2409.06411.
    """
    position = torch.arange(int(lengths.max()), device=lengths.device).unsqueeze(0)
    shared = torch.minimum(lengths, other).unsqueeze(1)
    weights = torch.where(position < shared, 1.0, alpha)
    return weights * (position < lengths.unsqueeze(1))


def sampled(
    lengths: Int[Tensor, " batch"], other: Int[Tensor, " batch"], generator: torch.Generator
) -> Float[Tensor, "batch tokens"]:
    """As many tokens as the shorter completion has, drawn without replacement (SamPO).

    Args:
        lengths: tokens of these completions.
        other: tokens of the other completions of the pairs.
        generator: decides the draw; on the CPU.

    Returns:
        1 for min(lengths, other) tokens of each row, 0 for the rest.

    Source: Lu et al. 2024, arXiv:2406.10957.
    """
    shape = (len(lengths), int(lengths.max()))
    draws = torch.rand(shape, generator=generator).to(lengths.device)
    position = torch.arange(shape[1], device=lengths.device).unsqueeze(0)
    draws = draws.masked_fill(position >= lengths.unsqueeze(1), 2.0)  # behind the end: drawn last
    rank = draws.argsort(dim=1).argsort(dim=1)
    return (rank < torch.minimum(lengths, other).unsqueeze(1)).float()


TOKEN_RULES: Mapping[str, TokenRule] = MappingProxyType(
    {
        "shared_length": TokenRule(shared_length, {"alpha": Range(0, 1, "weight")}),
        "sampled": TokenRule(sampled, {}),
    }
)
"""Rules by the name that a method's entry gives as ``logps``."""
