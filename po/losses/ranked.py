"""Losses of several completions of one prompt in order of merit."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from po.losses.shapes import check_same_shape


def pl_dpo(
    policy_ranked: Float[Tensor, "batch candidates"],
    reference_ranked: Float[Tensor, "batch candidates"],
    candidate_mask: Bool[Tensor, "batch candidates"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " batch"]:
    r"""DPO on a ranking: the Plackett-Luce likelihood of the order, with DPO's rewards.

    .. math:: \ell_i = -\sum_{k=1}^{K-1} (r_k - \log\sum_{j=k}^{K} e^{r_j}), \quad r_k = \beta\,a_k

    With two candidates this is DPO.

    Args:
        policy_ranked: summed log-probability of each candidate, best first, in nats.
        reference_ranked: the same under the reference.
        candidate_mask: True for a candidate, False for the padding of a list shorter than the longest.
            Padding adds nothing, whatever its values.
        beta: strength of the reference, in reward per nat; > 0.

    Returns:
        One loss per list, in nats; 0 for a list of one. A list of K costs log K! where all are alike, so
        long lists weigh more.

    Raises:
        ValueError: the inputs do not share one shape.

    Source: Rafailov et al. 2023, arXiv:2305.18290, appendix A.3.

    Example:
        >>> zero = torch.zeros(1, 3)
        >>> round(pl_dpo(zero, zero, zero == 0).exp().item(), 4)  # 3! orders
        6.0
    """
    check_same_shape(
        policy_ranked=policy_ranked, reference_ranked=reference_ranked, candidate_mask=candidate_mask
    )
    rewards = torch.where(candidate_mask, beta * (policy_ranked - reference_ranked), 0.0)
    n_candidates = rewards.shape[1]
    follows = torch.ones(n_candidates, n_candidates, dtype=torch.bool, device=rewards.device).triu()
    # Each candidate is compared with itself also where it is padding: the two cancel, and no row is empty.
    itself = torch.eye(n_candidates, dtype=torch.bool, device=rewards.device)
    compared = (follows & candidate_mask.unsqueeze(1)) | itself
    field = torch.where(compared, rewards.unsqueeze(1), -torch.inf).logsumexp(dim=2)
    return (field - rewards).sum(dim=1)
