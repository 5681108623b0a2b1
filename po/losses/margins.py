"""What a margin costs: the curves that the pairwise losses share."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def logistic(margin: Float[Tensor, " batch"], *, eps: float = 0.0) -> Float[Tensor, " batch"]:
    r"""Logistic loss with assumed label noise, :math:`-(1-\epsilon)\log\sigma(x) - \epsilon\log\sigma(-x)`.

    Args:
        margin: by how much the chosen side leads, in reward.
        eps: probability that a label is flipped, in [0, 0.5).

    Returns:
        One loss per pair, in nats.

    Source: E. Mitchell, "A note on DPO with noisy preferences and relationship to IPO", 2023.
    """
    if eps == 0:
        return -F.logsigmoid(margin)
    return -(1 - eps) * F.logsigmoid(margin) - eps * F.logsigmoid(-margin)


def hinge(margin: Float[Tensor, " batch"], *, delta: float) -> Float[Tensor, " batch"]:
    r"""Hinge loss, :math:`\max(0, \delta - x)`; its slope at the kink is 0.

    Args:
        margin: by how much the chosen side leads, in reward.
        delta: the lead from which on a pair costs nothing, in reward; > 0.

    Returns:
        One loss per pair, in reward.
    """
    return F.relu(delta - margin)


def squared_distance(margin: Float[Tensor, " batch"], *, target: float) -> Float[Tensor, " batch"]:
    r"""Squared distance to a target, :math:`(x - t)^2`: a lead beyond the target costs as well.

    Args:
        margin: by how much the chosen side leads, in nats.
        target: the wanted lead, in nats.

    Returns:
        One loss per pair, in squared nats.
    """
    return (margin - target).square()
