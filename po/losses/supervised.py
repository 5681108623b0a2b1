"""Negative log-likelihood of the chosen completion: SFT, and the term that other losses add to theirs."""

from jaxtyping import Float
from torch import Tensor

from po.losses.shapes import check_same_shape

ChosenNll = Float[Tensor, " batch"] | Float[Tensor, ""]
"""Negative log-likelihood of the chosen completions, in nats: one value per pair, or one scalar for all.

The setting ``nll_reduction`` decides which; the trainer computes it.
"""


def sft(chosen_nll: ChosenNll) -> ChosenNll:
    r"""Supervised fine-tuning: the negative log-likelihood of the chosen completion.

    .. math:: \ell_i = -\log p(y_w \mid x)

    Args:
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one value per example, or
            one scalar.

    Returns:
        The same values.
    """
    return chosen_nll


def add_nll(
    preference: Float[Tensor, " batch"], chosen_nll: ChosenNll | None, nll_weight: float
) -> Float[Tensor, " batch"]:
    """Adds the weighted negative log-likelihood of the chosen completion to a preference loss.

    Args:
        preference: one loss per pair.
        chosen_nll: negative log-likelihood of the chosen completions, in nats; one value per pair, or one
            scalar that is added to every pair. May be None where the weight is 0.
        nll_weight: weight of the term. At 0 the term is left out, so that not even a NaN of it gets in.

    Returns:
        One loss per pair.

    Raises:
        ValueError: the weight is not 0 and `chosen_nll` is missing or of another shape.
    """
    if nll_weight == 0:
        return preference
    if chosen_nll is None:
        raise ValueError(f"nll_weight = {nll_weight} needs chosen_nll; give it, or set nll_weight to 0.")
    if chosen_nll.ndim > 0:
        check_same_shape(preference=preference, chosen_nll=chosen_nll)
    return preference + nll_weight * chosen_nll
