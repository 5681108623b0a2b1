"""Further losses without a reference model, on log-probabilities averaged over the completion's tokens.

`policy_chosen` and `policy_rejected` as in `po.losses.reference_free`; `chosen_nll` is described in
`po.losses.supervised`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.exponents import capped
from po.losses.reference_free import policy_margin
from po.losses.shapes import check_same_shape
from po.losses.supervised import ChosenNll, add_nll


def cpo_ipo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    tau: float = 0.1,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""IPO without a reference, held by the likelihood of the chosen side.

    .. math:: \ell_i = (R_i - \tfrac{1}{2\tau})^2 + \lambda\,\mathrm{NLL}_i

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        tau: strength of the regularization, in 1 per nat (called beta by TRL); > 0.
        nll_weight: weight of the likelihood (cpo_alpha in TRL); >= 0, and at 0 the term is left out.

    Returns:
        One loss per pair, in squared nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: TRL's CPO trainer with the loss of Azar et al. 2023, arXiv:2310.12036.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return add_nll(margins.squared_distance(lead, target=1 / (2 * tau)), chosen_nll, nll_weight)


def simpo_hinge(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
    delta: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""SimPO with a hinge: a pair costs nothing once it leads by its target margin and delta.

    .. math:: \ell_i = \max(0, \delta - (\beta\,R_i - \gamma))

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        beta: scale of the lead, in reward per (nat per token); > 0.
        gamma: target margin, in reward; >= 0.
        delta: the lead beyond it from which on a pair costs nothing, in reward; > 0.

    Returns:
        One loss per pair, in reward.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Meng, Xia, Chen 2024, arXiv:2405.14734; an option of the authors' trainer.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return margins.hinge(beta * lead - gamma, delta=delta)


def alphapo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 2.5,
    gamma: float = 0.5,
    alpha: float = 0.25,
) -> Float[Tensor, " batch"]:
    r"""AlphaPO: SimPO with a bent reward.

    .. math:: \ell_i = -\log\sigma(\beta\,(r(m_w) - r(m_l)) - \gamma),
              \quad r(m) = \frac{1 - e^{-\alpha m}}{\alpha}

    Args:
        policy_chosen: log-probability m, **averaged** over the completion's tokens, in nats; one entry per
            pair. Summed ones would overflow the exponential.
        policy_rejected: the same of the rejected completion.
        beta: scale of the lead, in reward per (nat per token); > 0.
        gamma: target margin, in reward; >= 0.
        alpha: bend, in 1 per nat. At 0 this is SimPO; above, unlikely completions are told apart more, below
            less.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Gupta et al. 2025, arXiv:2501.03884.
    """
    check_same_shape(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    lead = _bent(policy_chosen, alpha) - _bent(policy_rejected, alpha)
    return margins.logistic(beta * lead - gamma)


def _bent(log_prob: Tensor, alpha: float) -> Tensor:
    return log_prob if alpha == 0 else -torch.expm1(capped(-alpha * log_prob)) / alpha


def simper(
    policy_chosen: Float[Tensor, " batch"], policy_rejected: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    r"""SimPER: inverse perplexity of the chosen completion up, of the rejected one down; nothing to tune.

    .. math:: \ell_i = e^{m_l} - e^{m_w}

    Args:
        policy_chosen: log-probability m, **averaged** over the completion's tokens, in nats; one entry per
            pair.
        policy_rejected: the same of the rejected completion.

    Returns:
        One loss per pair, in (-1, 1).

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Xiao et al. 2025, arXiv:2502.00883.
    """
    check_same_shape(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    return policy_rejected.exp() - policy_chosen.exp()
