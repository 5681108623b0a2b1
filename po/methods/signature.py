"""What a loss takes, read from its signature."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


@functools.cache
def parameters_of(loss: Callable[..., Tensor]) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """A loss's inputs, and its hyperparameters with their defaults; planning asks for them for every cell."""
    parameters = inspect.signature(loss).parameters.values()
    inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    return inputs, {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
