"""Exponents of log-ratios, kept where exp is finite."""

import torch
from jaxtyping import Float
from torch import Tensor

_CAP, _CAP_FLOAT16 = 80.0, 11.0


def capped(exponent: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The exponent, or the cap where it is larger; from there on its slope is 0.

    The caps are those of TRL: exp(80) leaves float32 and bfloat16 a factor of 6000, exp(11) is below the
    65504 of float16. Without them one pair far from the reference makes the loss infinite and the gradient
    of its whole batch NaN.

    Args:
        exponent: in nats.

    Returns:
        The same shape, in nats.
    """
    return exponent.clamp(max=_CAP_FLOAT16 if exponent.dtype == torch.float16 else _CAP)
