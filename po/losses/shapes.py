"""Shape checks whose message names the tensors."""

from torch import Tensor


def check_same_shape(**tensors: Tensor) -> None:
    """Refuse tensors that do not share one shape.

    A column ``[batch, 1]`` beside a row ``[batch]`` would otherwise broadcast to ``[batch, batch]``.

    Args:
        tensors: the tensors, by the name that the message shall use.

    Raises:
        ValueError: the shapes differ; the message lists every tensor with its shape.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"These tensors need one shape, one entry per example: {shapes}.")
