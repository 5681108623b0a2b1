"""Losses for labels of which some are wrong.

Inputs as in `po.losses.anchored`, summed over the completion's tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin


def cdpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    eps: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Conservative DPO: cross-entropy against labels that are right with probability 1 - eps.

    .. math:: \ell_i = -(1-\epsilon)\log\sigma(\beta\,\Delta_i) - \epsilon\log\sigma(-\beta\,\Delta_i)

    The least loss is at a lead of log((1 - eps) / eps) / beta nats; a wider one costs again.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        eps: probability that a label is flipped, in [0, 0.5). At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: E. Mitchell, "A note on DPO with noisy preferences and relationship to IPO", 2023. In TRL, the
        ``label_smoothing`` of the sigmoid loss, which has not been applied there since 0.29.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.logistic(beta * lead, eps=eps)


def robust_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    eps: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Robust DPO: with labels flipped at rate eps, its expectation is DPO's loss on the true labels.

    .. math:: \ell_i = \frac{-(1-\epsilon)\log\sigma(\beta\,\Delta_i)
              + \epsilon\log\sigma(-\beta\,\Delta_i)}{1 - 2\epsilon}

    The flipped term has the other sign than in `cdpo`, so the loss has no lower bound: negative values are
    as they should be, and the value says little about progress.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        eps: probability that a label is flipped, in [0, 0.5). At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or eps is not below 0.5.

    Source: Ray Chowdhury, Kini, Natarajan 2024, arXiv:2403.00409.
    """
    if not 0 <= eps < 0.5:
        raise ValueError(f"robust_dpo divides by 1 - 2·eps and needs eps in [0, 0.5); {eps} was given.")
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return (-(1 - eps) * F.logsigmoid(x) + eps * F.logsigmoid(-x)) / (1 - 2 * eps)


def ropo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    alpha: float = 14.0,
) -> Float[Tensor, " batch"]:
    r"""The noise-tolerant loss of robust preference optimization: DPO with a bounded part.

    .. math:: \ell_i = \frac{4\alpha}{(1+\alpha)^2}\,(-\log\sigma(\beta\,\Delta_i))
              + \frac{4\alpha^2}{(1+\alpha)^2}\,\sigma(-\beta\,\Delta_i)

    The second part flattens where a pair is ranked badly wrong, which is where flipped labels are. The
    paper's filtering of the data and its rejection sampling are no part of the loss.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        alpha: how many times the bounded part outweighs DPO's; > 1.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Liang et al. 2024, arXiv:2404.04102.
    """
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    scale = 4 * alpha / (1 + alpha) ** 2
    return scale * (alpha * torch.sigmoid(-x) - F.logsigmoid(x))
