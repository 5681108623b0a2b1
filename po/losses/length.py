"""DPO that takes the lengths of the two completions into account.

LD-DPO and SamPO do so as well, by other log-probabilities: their loss is `dpo`, their rule is in
`po.methods.logp_rules`.
"""

from jaxtyping import Float, Real
from torch import Tensor

from po.losses import margins
from po.losses.anchored import anchored_margin
from po.losses.shapes import check_same_shape


def ln_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 5.0,
) -> Float[Tensor, " batch"]:
    r"""Length-normalized DPO: the lead is one of log-probabilities per token.

    .. math:: \ell_i = -\log\sigma(\beta\,\Delta_i)

    Args:
        policy_chosen: log-probability **averaged** over the completion's tokens, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        beta: strength of the reference, in reward per (nat per token); > 0. About DPO's beta times the mean
            length.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Lambert et al. 2024 (Tülu 3), arXiv:2411.15124. ``sigmoid_norm`` in TRL.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return margins.logistic(beta * lead)


def length_dpo(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    chosen_length: Real[Tensor, " batch"],
    rejected_length: Real[Tensor, " batch"],
    *,
    beta: float = 0.1,
    alpha: float = 0.05,
) -> Float[Tensor, " batch"]:
    r"""Length-regularized DPO (R-DPO): a preference that length explains asks less of the policy.

    .. math:: \ell_i = -\log\sigma(\beta\,\Delta_i + \alpha\,(n_w - n_l))

    Args:
        policy_chosen: summed log-probability, in nats; one entry per pair.
        policy_rejected: the same of the rejected completion.
        reference_chosen: the same of the chosen completion under the reference.
        reference_rejected: the same of the rejected completion under the reference.
        chosen_length: tokens of the chosen completion; one entry per pair.
        rejected_length: tokens of the rejected completion.
        beta: strength of the reference, in reward per nat; > 0.
        alpha: what a token of length explains, in reward per token; >= 0. At 0 this is DPO.

    Returns:
        One loss per pair, in nats.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Park et al. 2024, arXiv:2403.19159, Eq. 9.
    """
    lead = anchored_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    check_same_shape(
        policy_chosen=policy_chosen, chosen_length=chosen_length, rejected_length=rejected_length
    )
    return margins.logistic(beta * lead + alpha * (chosen_length - rejected_length))
