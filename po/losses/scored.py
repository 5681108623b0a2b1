"""Losses that know how good both completions are, not only which is better.

Besides the inputs of `po.losses.anchored`, summed over the completion's tokens, they take the scores of a
metric, oriented so that larger is better, or a probability that the chosen completion wins. No gradient
flows through either.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin, log_ratios
from po.losses.choices import check_choice
from po.losses.shapes import check_same_shape

_LOGIT_MARGIN = 1e-8

Link = Literal["sigmoid", "logit"]
Transform = Literal["log", "identity"]
Nonpositive = Literal["drop", "zero", "signed"]
Labels = Literal["hard", "soft"]

LINKS: tuple[Link, ...] = ("sigmoid", "logit")
TRANSFORMS: tuple[Transform, ...] = ("log", "identity")
NONPOSITIVE: tuple[Nonpositive, ...] = ("drop", "zero", "signed")
LABELS: tuple[Labels, ...] = ("hard", "soft")


def soft_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_score: Float[Tensor, " batch"],
    rejected_score: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    scale: float = 1.0,
    link: Link = "sigmoid",
) -> Float[Tensor, " batch"]:
    r"""DPO with soft labels: the metric says how probable it is that the chosen completion is the better.

    .. math:: \ell_i = -P_i\log\sigma(\beta\,\Delta_i) - (1-P_i)\log\sigma(-\beta\,\Delta_i),
              \quad P_i = \sigma(k\,(t(s_w) - t(s_l)))

    with t the identity or the logit. Where the metric disagrees with the label, P is below 1/2 and the pair
    counts the other way round.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_score: metric of the chosen completion, larger is better; one entry per pair.
        rejected_score: the same of the rejected completion.
        beta: strength of the reference, in reward per nat; > 0.
        scale: factor k of the difference; > 0. CustomPOs-for-SLMs has 1.
        link: "sigmoid" takes scores as they are, "logit" as probabilities: those outside [0, 1] count as 0
            or 1.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, or the link is unknown.

    Source: CustomPOs-for-SLMs, there called mpo.
    """
    check_choice("link", link, LINKS)
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    check_same_shape(policy_chosen=policy_chosen, chosen_score=chosen_score)
    probability = label_probability(
        chosen_score.to(lead.dtype), rejected_score.to(lead.dtype), scale=scale, link=link
    )
    x = beta * lead
    return -probability * F.logsigmoid(x) - (1 - probability) * F.logsigmoid(-x)


def label_probability(
    chosen_score: Float[Tensor, " batch"],
    rejected_score: Float[Tensor, " batch"],
    *,
    scale: float,
    link: Link,
) -> Float[Tensor, " batch"]:
    """How probable the label is by the metric.

    Args:
        chosen_score: metric of the chosen completion, larger is better; one entry per pair.
        rejected_score: the same of the rejected completion.
        scale: factor of the difference.
        link: as of `soft_dpo`.

    Returns:
        One probability per pair; below 1/2 where the metric disagrees with the label.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    return torch.sigmoid(scale * _gap(chosen_score, chosen_score, rejected_score, link))


def _gap(policy: Tensor, chosen: Tensor, rejected: Tensor, link: Link = "sigmoid") -> Tensor:
    """By how much the chosen score is larger, of the same dtype as the policy's log-probabilities."""
    check_same_shape(policy_chosen=policy, chosen_score=chosen, rejected_score=rejected)
    chosen, rejected = chosen.detach().to(policy.dtype), rejected.detach().to(policy.dtype)
    if link == "logit":
        # 1 - 1e-8 is 1 in float32, whose logit is infinite.
        nearest_to_1 = max(_LOGIT_MARGIN, torch.finfo(policy.dtype).eps)
        chosen, rejected = chosen.logit(eps=nearest_to_1), rejected.logit(eps=nearest_to_1)
    return chosen - rejected


def odpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_score: Float[Tensor, " batch"],
    rejected_score: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    transform: Transform = "log",
    nonpositive: Nonpositive = "drop",
) -> Float[Tensor, " batch"]:
    r"""DPO with an offset: the more the metric tells the two apart, the wider the lead that is asked for.

    .. math:: \ell_i = -\log\sigma(\beta\,\Delta_i - \alpha\,f(s_w - s_l))

    The logarithm of a gap below 1 is negative: it asks for less than DPO does.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_score: metric of the chosen completion, larger is better; one entry per pair.
        rejected_score: the same of the rejected completion.
        beta: strength of the reference, in reward per nat; > 0.
        alpha: weight of the offset, in reward; >= 0. At 0 this is DPO.
        transform: f, "log" (the paper's) or "identity".
        nonpositive: what a pair becomes whose chosen score is not the larger: "drop" makes it cost 0,
            "zero" gives it no offset, "signed" gives it its negative offset (with "identity" only).

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape, a choice is unknown, or "signed" is asked for with
            "log".

    Source: Amini, Vieira, Cotterell 2024, arXiv:2402.10571.
    """
    check_choice("transform", transform, TRANSFORMS)
    check_choice("nonpositive", nonpositive, NONPOSITIVE)
    if transform == "log" and nonpositive == "signed":
        raise ValueError("odpo: a negative gap has no logarithm; take nonpositive 'drop' or 'zero'.")
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    gap = _gap(policy_chosen, chosen_score, rejected_score)
    positive = gap > 0
    if transform == "log":
        offset = torch.where(positive, gap, 1.0).log()
    else:
        offset = gap if nonpositive == "signed" else gap.clamp(min=0)
    losses = margins.logistic(beta * lead - alpha * offset)
    return torch.where(positive, losses, 0.0) if nonpositive == "drop" else losses


def rebel(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_score: Float[Tensor, " batch"],
    rejected_score: Float[Tensor, " batch"],
    *,
    eta: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""REBEL: the lead is regressed on the difference of the scores.

    .. math:: \ell_i = (\Delta_i - \eta\,(s_w - s_l))^2

    The authors' code has this form; their paper divides it by eta squared, with the same minimum.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_score: metric of the chosen completion, larger is better; one entry per pair.
        rejected_score: the same of the rejected completion.
        eta: nats of lead per unit of the metric; > 0.

    Returns:
        One loss per pair, in squared nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Gao et al. 2024, arXiv:2404.16767.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return (lead - eta * _gap(policy_chosen, chosen_score, rejected_score)).square()


def sppo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    win_probability: Float[Tensor, " batch"] | None = None,
    *,
    beta: float = 0.1,
    labels: Labels = "hard",
) -> Float[Tensor, " batch"]:
    r"""Self-play preference optimization: each log-ratio is pulled to (P(win) - 1/2) / beta.

    .. math:: \ell_i = (a_i - \tfrac{P_i - 1/2}{\beta})^2 + (b_i + \tfrac{P_i - 1/2}{\beta})^2

    beta stands in the target only: the gradient grows as beta shrinks, opposite to DPO.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        win_probability: probability P that the chosen completion beats the rejected one; one entry per pair.
            Not read with hard labels.
        beta: reward per nat (1 / eta in the paper); > 0. The authors' runs have 0.001.
        labels: "hard" takes P = 1, "soft" takes `win_probability`.

    Returns:
        One loss per pair, in squared nats.

    Raises:
        ValueError: the inputs do not share one shape, the labels are unknown, or soft and missing.

    Source: Wu et al. 2024, arXiv:2405.00675, Eq. 4.7.
    """
    check_choice("labels", labels, LABELS)
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    if labels == "hard":
        target = torch.full_like(chosen, 0.5 / beta)
    elif win_probability is None:
        raise ValueError("sppo with labels 'soft' needs win_probability; give it, or take labels 'hard'.")
    else:
        check_same_shape(policy_chosen=policy_chosen, win_probability=win_probability)
        target = (win_probability.detach() - 0.5) / beta
    return (chosen - target).square() + (rejected + target).square()
