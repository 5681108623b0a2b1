"""Pairwise losses read against a reference model.

In all of them `policy_chosen` is the log-probability of the chosen completion given its prompt under the
trained model, in nats, one entry per pair; `policy_rejected` that of the rejected one; `reference_*` the
same under the frozen reference. They are summed over the completion's tokens unless a loss says otherwise.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.shapes import check_same_shape


def log_ratios(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """How much likelier each completion is under the policy than under the reference.

    Args:
        policy_chosen: log-probability in nats, one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.

    Returns:
        policy_chosen - reference_chosen and policy_rejected - reference_rejected, in nats.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    check_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    return policy_chosen - reference_chosen, policy_rejected - reference_rejected


def anchored_margin(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """The lead of the chosen completion over the rejected one, beyond what the reference has already.

    Args:
        policy_chosen: log-probability in nats, one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.

    Returns:
        (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected), in nats.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return chosen - rejected


def dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    margin: float = 0.0,
    reference_free: bool = False,
) -> Float[Tensor, " batch"]:
    r"""Direct preference optimization.

    .. math:: \ell_i = -\log\sigma(\beta\,(\Delta_i - m))

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        margin: lead that is asked for, in nats: it is taken off before beta, so it equals a `dpo_gamma` with
            gamma = beta * margin.
        reference_free: take the reference as 0 everywhere. The same loss without a reference pass is `cpo`
            with nll_weight 0.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7.

    Example:
        >>> zero = torch.zeros(1)
        >>> round(dpo(zero, zero, zero, zero).item(), 4)
        0.6931
    """
    if reference_free:
        reference_chosen = torch.zeros_like(reference_chosen)
        reference_rejected = torch.zeros_like(reference_rejected)
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.logistic(beta * (lead - margin))


def dpo_gamma(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    gamma: float = 0.5,
    eps: float = 0.0,
) -> Float[Tensor, " batch"]:
    r"""DPO with a target margin: the chosen side must win by gamma.

    .. math:: \ell_i = -(1-\epsilon)\log\sigma(z_i) - \epsilon\log\sigma(-z_i),
              \quad z_i = \beta\,\Delta_i - \gamma

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        gamma: target margin, in reward; >= 0. At 0 this is DPO.
        eps: probability that a label is flipped, in [0, 0.5).

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: M. Santos, "Aligning Language Models with Human Preferences", MSc thesis, 2024, Eq. 4.1.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> round(dpo_gamma(one, zero, zero, zero, beta=1.0, gamma=1.0).item(), 4)
        0.6931
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.logistic(beta * lead - gamma, eps=eps)


def slic_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    delta: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""The hinge of SLiC on DPO's rewards: a pair costs nothing once it leads by delta.

    .. math:: \ell_i = \max(0, \delta - \beta\,\Delta_i)

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0. The hinge is active up to delta / beta nats.
        delta: the lead from which on a pair costs nothing, in reward; > 0.

    Returns:
        One loss per pair, in reward.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Liu et al. 2023 (RSO), arXiv:2309.06657, with the hinge of SLiC-HF, arXiv:2305.10425.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.hinge(beta * lead, delta=delta)


def ipo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    tau: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Identity preference optimization: the lead is pulled to 1 / (2 tau), from either side.

    .. math:: \ell_i = (\Delta_i - \tfrac{1}{2\tau})^2

    Args:
        policy_chosen: log-probability, in nats; one entry per pair. Averaged over the completion's tokens,
            as TRL, HALOs and LLaMA-Factory do; summed, as in the paper's equation and OpenRLHF, with the
            setting ``length_norm: false``. The formula is the same, a useful tau is not.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        tau: strength of the regularization, in 1 per nat (called beta by TRL); > 0.

    Returns:
        One loss per pair, in squared nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Azar et al. 2023, arXiv:2310.12036, Eq. 17.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.squared_distance(lead, target=1 / (2 * tau))
