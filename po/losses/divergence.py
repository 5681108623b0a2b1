"""Pairwise losses from another distance than DPO's: to the labels, or between policy and reference.

Inputs as in `po.losses.anchored`, summed over the completion's tokens.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin, log_ratios
from po.losses.choices import check_choice
from po.losses.exponents import capped

Divergence = Literal["reverse_kl", "js", "forward_kl", "alpha"]
DIVERGENCES: tuple[Divergence, ...] = ("reverse_kl", "js", "forward_kl", "alpha")


def exo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    eps: float = 1e-3,
) -> Float[Tensor, " batch"]:
    r"""Exact optimization: reverse KL from the smoothed labels to the policy's choice between the two.

    .. math:: \ell_i = \sigma(x_i)\log\frac{\sigma(x_i)}{1-\epsilon}
              + \sigma(-x_i)\log\frac{\sigma(-x_i)}{\epsilon}, \quad x_i = \beta\,\Delta_i

    Not convex: a pair that is ranked badly wrong hardly moves.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        eps: probability that a label is flipped, in (0, 0.5). The lead is pulled to log((1-eps)/eps) / beta.

    Returns:
        One loss per pair, in nats; 0 at the least.

    Raises:
        ValueError: the inputs do not share one shape, or eps is not between 0 and 0.5.

    Source: Ji et al. 2024, arXiv:2402.00856, Eq. 16.
    """
    if not 0 < eps < 0.5:
        raise ValueError(f"exo takes the logarithm of eps and needs it in (0, 0.5); {eps} was given.")
    x = beta * anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    chosen = torch.sigmoid(x) * (F.logsigmoid(x) - math.log1p(-eps))
    return chosen + torch.sigmoid(-x) * (F.logsigmoid(-x) - math.log(eps))


def f_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    divergence: Divergence = "reverse_kl",
    alpha: float = 0.5,
) -> Float[Tensor, " batch"]:
    r"""DPO with another divergence between policy and reference than the reverse KL.

    .. math:: \ell_i = -\log\sigma(\beta\,(g(a_i) - g(b_i)))

    with the log-ratios a of the chosen and b of the rejected completion. g(x) is x for the reverse KL (this
    is DPO), log sigma(x) for Jensen-Shannon, -exp(-x) for the forward KL, and
    (exp((alpha - 1) x) - 1) / (alpha - 1) for the alpha-divergence, which passes from the forward KL
    (alpha 0) to the reverse KL (alpha 1).

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        divergence: "reverse_kl", "js", "forward_kl" or "alpha".
        alpha: order of the alpha-divergence, in [0, 1]; not read by the others. Early versions of TRL
            counted the other way round: their alpha is 1 - this one.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or the divergence is unknown.

    Source: Wang et al. 2023, arXiv:2309.16240.
    """
    check_choice("divergence", divergence, DIVERGENCES)
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    lead = _derivative(chosen, divergence, alpha) - _derivative(rejected, divergence, alpha)
    return margins.logistic(beta * lead)


def _derivative(log_ratio: Tensor, divergence: Divergence, alpha: float) -> Tensor:
    """Derivative of the divergence's f at exp(log_ratio), up to a constant that cancels."""
    if divergence == "js":
        return F.logsigmoid(log_ratio)
    if divergence == "forward_kl":
        return -torch.exp(capped(-log_ratio))
    if divergence == "reverse_kl" or alpha == 1:
        return log_ratio
    return torch.expm1(capped((alpha - 1) * log_ratio)) / (alpha - 1)


def chi_po(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    clip: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Chi-squared PO: log-ratios plus ratios, so that leaving the reference costs more than under the KL.

    .. math:: \ell_i = -\log\sigma(\mathrm{clip}(\beta\,(\phi(a_i) - \phi(b_i)), -2R, 2R)),
              \quad \phi(x) = x + e^x

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        clip: the largest reward R that is assumed to exist; > 0. A pair whose lead in reward is beyond 2 R,
            either way, has no gradient.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Huang et al. 2024, arXiv:2407.13399.
    """
    lead = chi_lead(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=beta)
    return margins.logistic(lead.clamp(min=-2 * clip, max=2 * clip))


def chi_lead(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float,
) -> Float[Tensor, " batch"]:
    r"""The lead of chi-PO before it is clipped, :math:`\beta\,(a + e^a - b - e^b)`.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: reward per nat.

    Returns:
        One lead per pair, in reward.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    ratios = torch.exp(capped(chosen)) - torch.exp(capped(rejected))
    return beta * (chosen - rejected + ratios)


def cal_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Calibrated DPO: log-ratios are also pulled to a reward of 1/2 for chosen and -1/2 for rejected.

    .. math:: \ell_i = -\log\sigma(\Delta_i)
              + \tfrac12 (a_i - \tfrac{1}{2\beta})^2 + \tfrac12 (b_i + \tfrac{1}{2\beta})^2

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: reward per nat; > 0. It sets the targets only: the logistic term has no scale, in the paper
            and in the authors' code.

    Returns:
        One loss per pair; the logistic part is in nats, the squares are in squared nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Xiao et al. 2024, arXiv:2412.14516.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    target = 1 / (2 * beta)
    pull = (chosen - target).square() + (rejected + target).square()
    return margins.logistic(chosen - rejected) + 0.5 * pull
