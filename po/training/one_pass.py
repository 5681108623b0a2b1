"""Losses whose gradients the head can be given in its only pass: those with a share for each example."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from po.engine.fused import Separable, slopes_of
from po.methods.method import Method
from po.training.layouts import Batch
from po.training.quantities import Quantities, Scores, StepCounts, once

Losses = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs of a loss by name -> one loss per example."""


def is_separable(method: Method, quantities: Quantities) -> bool:
    """Whether an example's loss depends on summed log-probabilities and mean collisions of its rows alone.

    Args:
        method: entry of the table, or one put together.
        quantities: what it asks for.
    """
    asked = quantities.asked
    more = asked.tokens or asked.kl or asked.prompt or asked.distributions
    return not (method.batch_coupled or method.state is not None or more)


def separable_loss(
    quantities: Quantities, losses: Losses, batch: Batch, reference: Scores | None, step: StepCounts
) -> Separable:
    """The loss of a batch, for ``po.engine.fused``.

    Args:
        quantities: of a method that ``is_separable``.
        losses: of the method.
        batch: as the collator made it.
        reference: its answer, or None.
        step: counts of the optimizer step.
    """
    lengths, no_draws = batch["completion_mask"].sum(dim=1), torch.Generator()

    def total(values: Mapping[str, Tensor]) -> Tensor:
        return once(losses(quantities.of(batch, values, reference, lengths, step, no_draws)), batch).sum()

    return Separable(quantities.layout.owners(batch), slopes_of(total))
