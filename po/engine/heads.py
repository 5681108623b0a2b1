"""The head of a language model: what turns hidden states into logits, and whether its weights lie open."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OutputHead:
    """A head as a function of hidden states.

    Attributes:
        linear: hidden state -> logits; any module, adapters and hooks included.
        cap: the logits are cap * tanh(logits / cap); None: they stay as they are.
    """

    linear: Head
    cap: float | None = None

    def __call__(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits in the dtype of the module."""
        logits = self.linear(hidden)
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


@dataclass(frozen=True)
class PlainHead:
    """A head that is one matrix, perhaps with a bias and a soft cap.

    Attributes:
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.
        cap: as in ``OutputHead``.
    """

    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None
    cap: float | None = None

    @property
    def vocabulary(self) -> int:
        """The number of logits of a token."""
        return self.weight.shape[0]

    @property
    def frozen(self) -> bool:
        """Whether neither weight nor bias takes a gradient."""
        return not (self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad))


def plain_head(head: Head) -> PlainHead | None:
    """The weights of a head, where nothing but them makes its logits.

    Everything that must run as a module is left out: adapters and other subclasses of ``nn.Linear``, hooks, a
    replaced ``forward``, and weights that are sharded or quantized. FSDP2 shows whole weights while a model
    runs, so who calls must know of that.

    Returns:
        None where the head has to be called.
    """
    linear, cap = (head.linear, head.cap) if isinstance(head, OutputHead) else (head, None)
    if type(linear) is not nn.Linear or "forward" in vars(linear):
        return None
    if (
        linear._forward_hooks
        or linear._forward_pre_hooks
        or linear._backward_hooks
        or linear._backward_pre_hooks
    ):
        return None
    weights = [linear.weight] if linear.bias is None else [linear.weight, linear.bias]
    if not all(type(one) in (Tensor, nn.Parameter) and one.is_floating_point() for one in weights):
        return None
    if any(hasattr(one, "ds_id") for one in weights):  # as DeepSpeed marks what it shards
        return None
    return PlainHead(linear.weight, linear.bias, cap)
