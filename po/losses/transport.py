"""Alignment by optimal transport: distributions of log-ratios are compared, not single pairs.

Sorting is over what one call sees, a micro-batch of one process, as in TRL. With one pair the sort changes
nothing and both losses are DPO; more gradient accumulation does not change that, only larger micro-batches.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from po.losses import margins
from po.losses.shapes import check_same_shape
from po.losses.unpaired import log_ratio


def aot(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    eps: float = 0.0,
) -> Float[Tensor, " batch"]:
    r"""Paired AOT: the leads under the policy shall exceed those under the reference, rank by rank.

    .. math:: \ell_k = -(1-\epsilon)\log\sigma(\beta\,d_k) - \epsilon\log\sigma(-\beta\,d_k),
              \quad d_k = R_{(k)} - R^{ref}_{(k)}

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        eps: probability that a label is flipped, in [0, 0.5).

    Returns:
        One loss per **rank**, lowest lead first, in nats. They cannot be told apart by pair.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Melnyk et al. 2024, arXiv:2406.05882.
    """
    check_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    policy = (policy_chosen - policy_rejected).sort().values
    reference = (reference_chosen - reference_rejected).sort().values
    return margins.logistic(beta * (policy - reference), eps=eps)


def aot_unpaired(
    policy: Float[Tensor, " batch"],
    reference: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    *,
    beta: float = 0.1,
    eps: float = 0.0,
) -> Float[Tensor, " ranks"]:
    r"""Unpaired AOT: log-ratios of desirable completions shall exceed those of the others, rank by rank.

    .. math:: \ell_k = -(1-\epsilon)\log\sigma(\beta\,d_k) - \epsilon\log\sigma(-\beta\,d_k),
              \quad d_k = a_{(k)} - b_{(k)}

    Where there are more of one kind, the values of the other are filled up to as many quantiles, from its
    smallest to its largest value, by linear interpolation. (TRL's takes equal numbers only; there this loss
    was called ``aot_pair`` until 2026.)

    Args:
        policy: summed log-probability, in nats; one entry per completion.
        reference: the same under the reference.
        desirable: True for a wanted completion.
        beta: strength of the reference, in reward per nat; > 0.
        eps: probability that a label is flipped, in [0, 0.5).

    Returns:
        One loss per **rank**, in nats, as many as there are completions of the more frequent kind. Without
        any of one kind there is nothing to compare: zeros, whose gradient is 0.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Melnyk et al. 2024, arXiv:2406.05882.
    """
    ratio = log_ratio(policy, reference, desirable)
    wanted, unwanted = ratio[desirable].sort().values, ratio[~desirable].sort().values
    count = max(len(wanted), len(unwanted))
    if min(len(wanted), len(unwanted)) == 0:
        return 0 * ratio
    return margins.logistic(beta * (_quantiles(wanted, count) - _quantiles(unwanted, count)), eps=eps)


def _quantiles(ascending: Tensor, count: int) -> Tensor:
    """As many evenly spaced quantiles, the smallest and the largest value among them."""
    last = len(ascending) - 1
    if count == last + 1:
        return ascending
    position = torch.linspace(0, last, count, dtype=ascending.dtype, device=ascending.device)
    below = position.long().clamp(max=last)
    above = (below + 1).clamp(max=last)
    return torch.lerp(ascending[below], ascending[above], position - below)
