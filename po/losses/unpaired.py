"""Losses of single completions with a label: desirable, or not.

`policy` is the log-probability of a completion given its prompt under the trained model, summed over its
tokens, in nats, one entry per completion; `reference` the same under the frozen reference; `desirable` is
True for a wanted completion. A batch may hold completions of one kind only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from po.losses.shapes import check_same_shape


def log_ratio(
    policy: Float[Tensor, " batch"], reference: Float[Tensor, " batch"], desirable: Bool[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """How much likelier each completion is under the policy than under the reference.

    Args:
        policy: log-probability in nats, one entry per completion.
        reference: the same under the reference.
        desirable: whether the completion is wanted.

    Returns:
        policy - reference, in nats.

    Raises:
        ValueError: the inputs do not share one shape.
    """
    check_same_shape(policy=policy, reference=reference, desirable=desirable)
    return policy - reference


def kto(
    policy: Float[Tensor, " batch"],
    reference: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    kl: Float[Tensor, ""],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Kahneman-Tversky optimization: gains and losses against a reference point, saturating both ways.

    .. math:: \ell_i = \lambda_D\,(1 - \sigma(\beta\,(a_i - z)))\ \text{if desirable, else}\
              \lambda_U\,(1 - \sigma(\beta\,(z - b_i))), \quad z = \max(0, \mathrm{KL})

    Args:
        policy: summed log-probability, in nats; one entry per completion.
        reference: the same under the reference.
        desirable: True for a wanted completion.
        kl: mean log-ratio of completions put to other prompts, in nats, a scalar, before it is clamped at 0.
            No gradient flows through it.
        beta: strength of the reference, in reward per nat; > 0.
        desirable_weight: weight of a wanted completion (lambda_D); >= 0. With the numbers n of both kinds,
            lambda_D n_D / (lambda_U n_U) should be 1 to 4/3.
        undesirable_weight: weight of an unwanted completion (lambda_U); >= 0.

    Returns:
        One loss per completion, between 0 and its weight.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Ethayarajh et al. 2024, arXiv:2402.01306.
    """
    lead = beta * (log_ratio(policy, reference, desirable) - kl.detach().clamp(min=0))
    wanted, unwanted = torch.sigmoid(-lead), torch.sigmoid(lead)
    return torch.where(desirable, desirable_weight * wanted, undesirable_weight * unwanted)


def apo_zero_unpaired(
    policy: Float[Tensor, " batch"],
    reference: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Anchored PO on single completions: KTO with its reference point at 0.

    .. math:: \ell_i = \lambda_D\,(1 - \sigma(\beta\,a_i))\ \text{if desirable, else}\
              \lambda_U\,\sigma(\beta\,b_i)

    Args:
        policy: summed log-probability, in nats; one entry per completion.
        reference: the same under the reference.
        desirable: True for a wanted completion.
        beta: strength of the reference, in reward per nat; > 0.
        desirable_weight: weight of wanted completions; >= 0.
        undesirable_weight: weight of unwanted ones; >= 0.

    Returns:
        One loss per completion, from 0 to its weight.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, as in TRL's KTO trainer.
    """
    reward = beta * log_ratio(policy, reference, desirable)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(reward.dtype)
    return weight * torch.sigmoid(torch.where(desirable, -reward, reward))


def bco(
    policy: Float[Tensor, " batch"],
    reference: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    reward_shift: Float[Tensor, ""],
    density_ratio: Float[Tensor, " batch"] | None = None,
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Binary classifier optimization: is a completion one of the desirable ones?

    .. math:: \ell_i = -\log\sigma(\beta\,a_i - \delta)\ \text{if desirable, else}\
              -w_i\log\sigma(-(\beta\,b_i - \delta))

    Args:
        policy: summed log-probability, in nats; one entry per completion.
        reference: the same under the reference.
        desirable: True for a wanted completion.
        reward_shift: the reward delta that separates the classes, a scalar: the mean reward so far. No
            gradient flows through it.
        density_ratio: weights w: how much likelier the prompt is among those of desirable completions than
            among the others, and 1 for desirable completions. None weighs all alike.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per completion, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Jung et al. 2024, arXiv:2404.04656.
    """
    reward = beta * log_ratio(policy, reference, desirable) - reward_shift.detach()
    losses = -F.logsigmoid(torch.where(desirable, reward, -reward))
    if density_ratio is None:
        return losses
    check_same_shape(policy=policy, density_ratio=density_ratio)
    return density_ratio * losses
