"""Pairwise losses without a reference model.

In all of them `policy_chosen` is the log-probability of the chosen completion given its prompt under the
trained model, in nats, one entry per pair, and `policy_rejected` that of the rejected one; each docstring
says whether they are summed or averaged over the completion's tokens. `chosen_nll` is described in
`po.losses.supervised`.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.shapes import check_same_shape
from po.losses.stable import log1mexp
from po.losses.supervised import ChosenNll, add_nll


def policy_margin(
    policy_chosen: Float[Tensor, " batch"], policy_rejected: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The lead of the chosen completion over the rejected one under the trained model.

    Args:
        policy_chosen: log-probability in nats, one entry per pair.
        policy_rejected: the same of the rejected completion.

    Returns:
        policy_chosen - policy_rejected, in nats.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    check_same_shape(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    return policy_chosen - policy_rejected


def cpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    beta: float = 0.1,
    eps: float = 0.0,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Contrastive preference optimization: DPO without a reference, held by the chosen side's likelihood.

    .. math:: \ell_i = -(1-\epsilon)\log\sigma(z_i) - \epsilon\log\sigma(-z_i) + \lambda\,\mathrm{NLL}_i,
              \quad z_i = \beta\,R_i

    Args:
        policy_chosen: **summed** log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        beta: scale of the lead, in reward per nat; > 0.
        eps: probability that a label is flipped, in [0, 0.5).
        nll_weight: weight of the likelihood (cpo_alpha in TRL); >= 0, and at 0 the term is left out.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: Xu et al. 2024, arXiv:2401.08417, Eq. 3.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return add_nll(margins.logistic(beta * lead, eps=eps), chosen_nll, nll_weight)


def slic(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    beta: float = 0.1,
    delta: float = 1.0,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Sequence likelihood calibration: a hinge on the lead, held by the likelihood of the chosen side.

    .. math:: \ell_i = \max(0, \delta - \beta\,R_i) + \lambda\,\mathrm{NLL}_i

    The paper has no scale (beta 1) and a small weight; the defaults here are those of TRL's CPO trainer
    with its hinge.

    Args:
        policy_chosen: **summed** log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        beta: scale of the lead, in reward per nat; > 0.
        delta: the lead from which on a pair costs nothing, in reward; > 0.
        nll_weight: weight of the likelihood; >= 0, and at 0 the term is left out.

    Returns:
        One loss per pair.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return add_nll(margins.hinge(beta * lead, delta=delta), chosen_nll, nll_weight)


def simpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
    eps: float = 0.0,
    nll_weight: float = 0.0,
) -> Float[Tensor, " batch"]:
    r"""Simple preference optimization: log-probability per token as reward, with a target margin.

    .. math:: \ell_i = -(1-\epsilon)\log\sigma(z_i) - \epsilon\log\sigma(-z_i) + \lambda\,\mathrm{NLL}_i,
              \quad z_i = \beta\,R_i - \gamma

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        beta: scale of the lead, in reward per (nat per token); > 0.
        gamma: target margin, in reward; >= 0. In nats per token it is gamma / beta.
        eps: probability that a label is flipped, in [0, 0.5).
        nll_weight: weight of the likelihood; >= 0, and at 0 the term is left out.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: Meng, Xia, Chen 2024, arXiv:2405.14734. Defaults of the authors' trainer; TRL has beta 0.1.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return add_nll(margins.logistic(beta * lead - gamma, eps=eps), chosen_nll, nll_weight)


def cpo_simpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll | None = None,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
    eps: float = 0.0,
    nll_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """SimPO held by the likelihood of the chosen side, as CPO is.

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        beta: scale of the lead, in reward per (nat per token); > 0.
        gamma: target margin, in reward; >= 0.
        eps: probability that a label is flipped, in [0, 0.5).
        nll_weight: weight of the likelihood (cpo_alpha in TRL); at 0 this is SimPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or `chosen_nll` is missing though it has a weight.

    Source: the repository fe1ixxu/CPO_SIMPO; TRL's CPO trainer with ``loss_type: simpo``.
    """
    return simpo(
        policy_chosen, policy_rejected, chosen_nll, beta=beta, gamma=gamma, eps=eps, nll_weight=nll_weight
    )


def log_odds_ratio(
    policy_chosen: Float[Tensor, " batch"], policy_rejected: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """How much the odds of a token of the chosen completion exceed those of the rejected one.

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.

    Returns:
        log odds(chosen) - log odds(rejected) with odds p / (1 - p), in nats.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    lead = policy_margin(policy_chosen, policy_rejected)
    return lead - (log1mexp(policy_chosen) - log1mexp(policy_rejected))


def orpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    chosen_nll: ChosenNll,
    *,
    odds_weight: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Odds-ratio preference optimization: supervised fine-tuning plus a small preference term.

    .. math:: \ell_i = \mathrm{NLL}_i - \lambda\log\sigma(\log\mathrm{odds}(m_w) - \log\mathrm{odds}(m_l))

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per
            pair. With summed ones every odds is its probability, and what the method is about is gone.
        policy_rejected: the same of the rejected completion.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one per pair, or one scalar.
        odds_weight: weight of the preference term (beta in TRL, lambda in the paper); >= 0. There is no
            other scale.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Hong, Lee, Thorne 2024, arXiv:2403.07691. The paper's likelihood counts prompt tokens too; ours
        does not.
    """
    odds_term = -F.logsigmoid(log_odds_ratio(policy_chosen, policy_rejected))
    return add_nll(odds_weight * odds_term, chosen_nll, 1.0)
