"""Losses of pairs that judge each completion on its own, against the reference.

Where the losses of `po.losses.anchored` read only the difference of the two log-ratios, these say of each
where it should go. Inputs as there, summed over the completion's tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from po.losses.anchored import log_ratios


def nca(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Noise-contrastive alignment of a pair: lifts the chosen log-ratio to a bound, lowers the rejected.

    .. math:: \ell_i = -\log\sigma(\beta\,a_i) - \tfrac12\log\sigma(-\beta\,a_i)
              - \tfrac12\log\sigma(-\beta\,b_i)

    The chosen terms are least where sigma(beta a) = 2/3.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Chen et al. 2024, arXiv:2402.05369.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    lowered = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
    return -F.logsigmoid(beta * chosen) - 0.5 * lowered


def bco_pair(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    reward_shift: Float[Tensor, ""],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Binary classifier optimization on pairs: is a completion one of the chosen?

    .. math:: \ell_i = -\log\sigma(\beta\,a_i - \delta) - \log\sigma(-(\beta\,b_i - \delta))

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        reward_shift: the reward delta that separates the classes, a scalar: the mean reward so far. No
            gradient flows through it.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per pair, in nats: the sum over its two completions.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Jung et al. 2024, arXiv:2404.04656.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    shift = reward_shift.detach()
    return -F.logsigmoid(beta * chosen - shift) - F.logsigmoid(shift - beta * rejected)


def apo_zero(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Anchored PO for chosen completions better than the model's own: chosen up, rejected down.

    .. math:: \ell_i = 1 - \sigma(\beta\,a_i) + \sigma(\beta\,b_i)

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per pair, in [0, 2]: a sum of probabilities, of log-ratios in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Anchored PO for chosen completions worse than the model's own: both down, the rejected one more.

    .. math:: \ell_i = \sigma(\beta\,a_i) + 1 - \sigma(\beta\,\Delta_i)

    At the start the chosen side has no gradient: its two terms cancel.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per pair, in [0, 2]: a sum of probabilities, of log-ratios in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return torch.sigmoid(beta * chosen) + torch.sigmoid(beta * (rejected - chosen))


def kto_pair(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    detach_kl: bool = True,
) -> Float[Tensor, " completions"]:
    r"""KTO on pairs: each side is measured against the other side's mean log-ratio.

    .. math:: \ell_i^w = 1 - \sigma(\beta\,(a_i - \max(0, \bar b))), \quad
              \ell_i^l = 1 - \sigma(\beta\,(\max(0, \bar a) - b_i))

    The means are over the batch. Pairs are a biased sample for a distance between policy and reference;
    `po.losses.unpaired.kto` has a better one.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per nat; > 0.
        detach_kl: keep the gradient from flowing through the two means. TRL 0.7.11 and CustomPOs-for-SLMs
            let it: with one pair their gradient at the start is twice as large.

    Returns:
        Two losses per pair, in [0, 1]: first those of all chosen completions, then those of all rejected.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: TRL 0.7.11, after Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7.
    """
    chosen, rejected = log_ratios(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    chosen_kl, rejected_kl = (ratio.mean().clamp(min=0) for ratio in (chosen, rejected))
    if detach_kl:
        chosen_kl, rejected_kl = chosen_kl.detach(), rejected_kl.detach()
    return torch.sigmoid(beta * torch.cat([rejected_kl - chosen, rejected - chosen_kl]))
