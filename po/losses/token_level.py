"""Pairwise losses that read whole distributions over tokens: how far the policy is, how sure the reference.

Besides the inputs of `po.losses.anchored`, summed over the completion's tokens, they take one number per
completion or pair that needs the logits of every token.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin
from po.losses.shapes import check_same_shape


def tdpo1(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_kl: Float[Tensor, " batch"],
    rejected_kl: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""Token-level DPO, first form: the two completions' distance from the reference counts as well.

    .. math:: \ell_i = -\log\sigma(\beta\,(\Delta_i - (K_l - K_w)))

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_kl: sum over the tokens of the chosen completion of KL(reference || policy), in nats; one entry
            per pair, with its gradient.
        rejected_kl: the same of the rejected completion.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Zeng et al. 2024, arXiv:2404.11999.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    check_same_shape(policy_chosen=policy_chosen, chosen_kl=chosen_kl, rejected_kl=rejected_kl)
    return margins.logistic(beta * (lead - (rejected_kl - chosen_kl)))


def tdpo2(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_kl: Float[Tensor, " batch"],
    rejected_kl: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Float[Tensor, " batch"]:
    r"""Token-level DPO, second form: the distance on the chosen side is a yardstick only.

    .. math:: \ell_i = -\log\sigma(\beta\,(\Delta_i - \alpha\,(K_l - \mathrm{sg}(K_w))))

    with sg for no gradient.

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_kl: sum over the tokens of the chosen completion of KL(reference || policy), in nats; one entry
            per pair. No gradient flows through it.
        rejected_kl: the same of the rejected completion, with its gradient.
        beta: strength of the reference, in reward per nat; > 0.
        alpha: weight of the distances; >= 0. At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Zeng et al. 2024, arXiv:2404.11999.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    check_same_shape(policy_chosen=policy_chosen, chosen_kl=chosen_kl, rejected_kl=rejected_kl)
    return margins.logistic(beta * (lead - alpha * (rejected_kl - chosen_kl.detach())))


def mallows_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    reference_entropy: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    phi: float = 0.29,
) -> Float[Tensor, " batch"]:
    r"""Mallows-DPO: a prompt on which the reference is sure counts more than one that leaves much open.

    .. math:: \ell_i = -\log\sigma(c_i\,\beta\,\Delta_i), \quad c_i = -\phi\log h_i

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        reference_entropy: h, the reference's mean entropy per token over the logarithm of the vocabulary's
            size, averaged over both completions; in (0, 1), one entry per pair. No gradient flows through it.
        beta: strength of the reference, in reward per nat; > 0.
        phi: scale of the factor c; > 0. The default is that of the authors' code, which brings the mean of c
            on their data to 1, so that a useful beta is that of DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Chen et al. 2024, arXiv:2405.14953.
    """
    # CustomPOs-for-SLMs takes the policy's entropy, summed over tokens: it exceeds 1 for all but very short
    # completions, and the preference is then turned round.
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    check_same_shape(policy_chosen=policy_chosen, reference_entropy=reference_entropy)
    least = torch.finfo(reference_entropy.dtype).eps
    dispersion = -phi * reference_entropy.detach().clamp(min=least, max=1).log()
    return margins.logistic(dispersion * (beta * lead))
