"""Losses in which a pair's weight, or beta itself, depends on how well pairs are ranked.

Inputs as in `po.losses.anchored`, summed over the completion's tokens. The weights are taken as powers of
sigmoids through their logarithms: a sigmoid that has rounded to 0 has no finite slope under a power below 1.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin
from po.losses.shapes import check_same_shape


def fpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    focus: float = 2.0,
) -> Float[Tensor, " batch"]:
    r"""Focal DPO: pairs that are ranked right already count less.

    .. math:: \ell_i = -(1 - \sigma(\beta\,\Delta_i))^{f}\,\log\sigma(\beta\,\Delta_i)

    The gradient flows through the weight too. `focal_po` weighs in the opposite direction.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        focus: power of the weight; >= 0. At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: CustomPOs-for-SLMs, with the focal loss of Lin et al. 2017, arXiv:1708.02002.
    """
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -torch.exp(focus * F.logsigmoid(-x)) * F.logsigmoid(x)


def fcpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    focus: float = 2.0,
) -> Float[Tensor, " batch"]:
    r"""Focal CPO: the weight looks at the lead beyond the reference, the likelihood at the policy alone.

    .. math:: \ell_i = -(1 - \sigma(\beta\,\Delta_i))^{f}\,\log\sigma(\beta\,R_i)

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: scale of both leads, in reward per nat; > 0.
        focus: power of the weight; >= 0. At 0 this is the preference term of CPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: CustomPOs-for-SLMs.
    """
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -torch.exp(focus * F.logsigmoid(-x)) * F.logsigmoid(beta * (policy_chosen - policy_rejected))


def focal_po(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    focus: float = 0.05,
) -> Float[Tensor, " batch"]:
    r"""FocalPO: pairs that are ranked wrong count less, since training hardly ever repairs them.

    .. math:: \ell_i = -\sigma(\beta\,\Delta_i)^{f}\,\log\sigma(\beta\,\Delta_i)

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        focus: power of the weight; >= 0. At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Liu et al. 2025, arXiv:2501.06645.
    """
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -torch.exp(focus * F.logsigmoid(x)) * F.logsigmoid(x)


def discopop(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.05,
    temperature: float = 0.05,
) -> Float[Tensor, " batch"]:
    r"""DiscoPOP: logistic loss where a pair is ranked wrong, exponential loss where it is ranked right.

    .. math:: \ell_i = (1 - w_i)\,(-\log\sigma(x_i)) + w_i\,e^{-x_i},
              \quad x_i = \beta\,\Delta_i, \quad w_i = \sigma(x_i / t)

    Not monotone: at temperature 0.05 the loss rises between x = -0.1186 and x = 0.072, so that the first
    steps narrow the leads. The authors report this as a property of the loss that their search has found.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0. Default of the paper; TRL has 0.1.
        temperature: width of the passage between the two losses, in reward (tau in the paper); in (0, 1].

    Returns:
        One loss per pair.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Lu et al. 2024, arXiv:2406.08414, Eq. 5.
    """
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    # w * exp(-x) as one exponential: its factors are 0 and infinity where x is far below 0.
    exponential = torch.exp(F.logsigmoid(x / temperature) - x)
    return exponential - torch.sigmoid(-x / temperature) * F.logsigmoid(x)


def beta_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    batch_margin: Float[Tensor, ""],
    running_margin: Float[Tensor, ""],
    kept: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    sensitivity: float = 0.6,
    min_beta: float = 1e-3,
) -> Float[Tensor, " batch"]:
    r"""DPO whose beta grows with the lead of the batch, on the pairs that a filter has kept.

    .. math:: \ell_i = -\log\sigma(\beta'\,\Delta_i),
              \quad \beta' = \max(\beta_{min}, \beta\,(1 + c\,(\bar\Delta - M)))

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        batch_margin: mean lead of the batch, in nats; a scalar. No gradient flows through it.
        running_margin: its exponential mean over the steps up to this one, in nats; a scalar.
        kept: 1 for a pair that counts, 0 for one that the filter has dropped; one entry per pair.
        beta: strength of the reference where the batch is as usual, in reward per nat; > 0.
        sensitivity: how beta follows the lead of the batch, in 1 per nat; >= 0. At 0 this is DPO.
        min_beta: the least that beta becomes, in reward per nat; > 0.

    Returns:
        One loss per pair, in nats, scaled so that the mean over all pairs is the mean over the kept ones;
        exactly 0 for a dropped pair.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Wu et al. 2024, arXiv:2407.08639.
    """
    check_same_shape(policy_chosen=policy_chosen, kept=kept)
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    strength = beta * (1 + sensitivity * (batch_margin - running_margin)).detach()
    weight = kept.to(lead.dtype) * (kept.numel() / kept.sum().clamp(min=1).to(lead.dtype))
    return weight * margins.logistic(strength.clamp(min=min_beta) * lead)
