"""Losses against a side effect of DPO: that the chosen completion becomes less likely too.

It is strongest where chosen and rejected differ in few tokens, as translations of one sentence do.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin
from po.losses.shapes import check_same_shape
from po.losses.supervised import ChosenNll, add_nll


def rpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    beta: float = 0.1,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""DPO held by the likelihood of the chosen completion.

    .. math:: \ell_i = -\log\sigma(\beta\,\Delta_i) + \lambda\,\mathrm{NLL}_i

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        beta: strength of the reference, in reward per nat; > 0.
        nll_weight: weight of the likelihood (alpha in the paper, rpo_alpha in TRL); >= 0, and at 0 the term
            is left out.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: Pang et al. 2024, arXiv:2404.19733; Liu et al. 2024, arXiv:2405.16436.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return add_nll(margins.logistic(beta * lead), chosen_nll, nll_weight)


def dpop(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    lam: float = 50.0,
) -> Float[Tensor, " batch"]:
    r"""DPO-Positive: a chosen completion that is less likely than under the reference takes off its lead.

    .. math:: \ell_i = -\log\sigma(\beta\,(\Delta_i - \lambda\max(0, \log\pi_{ref}(y_w) - \log\pi(y_w))))

    Below the reference the gradient on the chosen side is 1 + lam times that of DPO: clip gradients. At the
    kink its slope is that of DPO.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0. The paper has 0.3.
        lam: nats of lead that are lost per nat below the reference; >= 0. At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Pal et al. 2024, arXiv:2402.13228.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.logistic(beta * (lead - lam * F.relu(reference_chosen - policy_chosen)))


def arpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None,
    chosen_length: Real[Tensor, " batch"],
    rejected_length: Real[Tensor, " batch"],
    *,
    beta: float = 0.1,
    c1: float = 1.0,
    c2: float = 0.4,
    tau_min: float = 0.0,
    detach_tau: bool = False,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Adaptive-rejection PO: CPO that rejects a completion the less, the closer it is to the chosen one.

    .. math:: \ell_i = -\log\sigma(\beta\,(\log\pi(y_w) - \tau_i\log\pi(y_l))) + \lambda\,\mathrm{NLL}_i,
              \quad \tau_i = \max(\tau_{min}, \min(1, c_1 e^{c_2|m_w - m_l|} - 1))

    with m the log-probability per token.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        chosen_length: tokens of the chosen completion; one entry per pair.
        rejected_length: tokens of the rejected completion.
        beta: scale of the lead, in reward per nat; > 0.
        c1: tau is c1 - 1 where both are equally likely per token; > 0.
        c2: growth of tau, in 1 per (nat per token); >= 0.
        tau_min: least tau, in [-1, 1]; -1 is no floor, since tau is never below.
        detach_tau: keep the gradient from flowing through tau. The authors' code lets it flow: it then widens
            the distance per token also where the rejected completion is the likelier one.
        nll_weight: weight of the likelihood; >= 0, and at 0 the term is left out.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: Xu et al. 2024 (X-ALMA), arXiv:2410.03115.
    """
    # The authors' code has c1 = 0.9 and no floor: below 0.26 nats per token between the two, tau is then
    # negative and the rejected completion is made likelier. With c1 = 1 tau starts at 0.
    check_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
    )
    distance = (policy_chosen / chosen_length - policy_rejected / rejected_length).abs()
    # tau reaches 1 at this exponent. Taking the minimum here, not of tau, keeps exp from overflowing.
    tau = c1 * torch.exp((c2 * distance).clamp(max=math.log(2 / c1))) - 1
    tau = tau.clamp(min=tau_min)
    lead = policy_chosen - (tau.detach() if detach_tau else tau) * policy_rejected
    return add_nll(margins.logistic(beta * lead), chosen_nll, nll_weight)
