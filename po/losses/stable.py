"""Functions of log-probabilities that keep value and gradient finite in float32."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_LOG_2 = math.log(2.0)


def log1mexp(log_prob: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""The log-probability of the opposite event, :math:`\log(1 - e^x)`.

    Near 0 it is taken as ``log(-expm1(x))``, far from it as ``log1p(-exp(x))`` (Maechler 2012, "Accurately
    Computing log(1 - exp(-|a|))").

    Args:
        log_prob: log-probabilities in nats, at most 0. Values above minus the machine epsilon of the dtype
            count as minus epsilon: the function goes to minus infinity there, and its slope too.

    Returns:
        One value per entry, in nats, finite.

    Example:
        >>> round(log1mexp(torch.tensor([math.log(0.25)])).exp().item(), 6)
        0.75
    """
    x = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)
    near = x > -_LOG_2
    # Each branch gets a harmless argument where it is not selected: wherever exp(x) rounds to 1, the slope
    # of log1p(-exp(x)) is infinite, and 0 * inf in the branch that lost makes the gradient NaN. With an
    # exact exp the clamp alone prevents that, by two units in the last place; a less exact exp may not.
    x_near = torch.where(near, x, -_LOG_2)
    x_far = torch.where(near, -_LOG_2, x)
    return torch.where(near, torch.log(-torch.expm1(x_near)), torch.log1p(-torch.exp(x_far)))
