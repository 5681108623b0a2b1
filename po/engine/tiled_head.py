"""Values of tokens from a plain head in tiles, with gradients for any loss.

Beside weights that are trained a token costs 8 operations per number in them: 2 for its values, 2 for its
logits again, 4 for both gradients. Tiles that are kept save the second time. Beside a frozen head the slope
of a token's log-probability at its hidden state depends on the loss by nothing but a factor: it is found
together with the values, in one pass of 4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from po.engine.head_tiles import Measured, Tiles
from po.engine.heads import PlainHead

_SLOPED = ("logps", "collision", "entropy")  # values that can have gradients


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of a head's matrix products, by the rules of autocast."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def tiled_statistics(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    head: PlainHead,
    names: Sequence[str],
    logged: Sequence[str],
    room: int,
) -> dict[str, Float[Tensor, " tokens"]]:
    """As ``po.engine.logps.token_statistics``, whose arguments these are.

    Args:
        hidden: last hidden states.
        targets: token ids.
        head: the weights.
        names: values, with gradients where they can have them.
        logged: values without gradients.
        room: bytes of tiles that may be kept for the backward pass.
    """
    dtype, every = product_dtype(hidden), (*names, *logged)
    trained = hidden.requires_grad or not head.frozen
    with torch.autocast(hidden.device.type, enabled=False):
        if not (trained and torch.is_grad_enabled() and any(name in _SLOPED for name in names)):
            with torch.no_grad():
                return Tiles(hidden, targets, head, dtype).measure(every).values
        sloped = tuple(name for name in names if name in _SLOPED)
        rule: Any = _Frozen if head.frozen and sloped == ("logps",) else _Recomputed
        found = rule.apply(hidden, head.weight, head.bias, targets, head.cap, dtype, every, sloped, room)
    return dict(zip(every, found, strict=True))


class _Recomputed(torch.autograd.Function):
    """Values; the backward pass computes the tiles again that were not kept."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
        dtype: torch.dtype,
        every: tuple[str, ...],
        sloped: tuple[str, ...],
        room: int,
    ) -> tuple[Tensor, ...]:
        tiles = Tiles(hidden, targets, PlainHead(weight, bias, cap), dtype, room)
        measured = tiles.measure(every)
        values = [measured.values[name] for name in sloped]
        ctx.save_for_backward(hidden, weight, bias, targets, measured.log_total, *values)
        ctx.cap, ctx.dtype, ctx.kept, ctx.every, ctx.sloped = cap, dtype, tiles.kept, every, sloped
        return _outputs(ctx, measured, every, sloped)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_total, *values = ctx.saved_tensors
        given = _given(ctx, slopes)
        if not given:
            return (None,) * 9
        measured = Measured(dict(zip(ctx.sloped, values, strict=True)), log_total)
        with torch.autocast(hidden.device.type, enabled=False):
            tiles = Tiles(hidden, targets, PlainHead(weight, bias, ctx.cap), ctx.dtype, kept=ctx.kept)
            found = tiles.gradients(measured, given, ctx.needs_input_grad[:3])
        return (*as_given(found, (hidden, weight, bias)), *(None,) * 6)


class _Frozen(torch.autograd.Function):
    """Log-probabilities by a head that is not trained; their gradients are found on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
        dtype: torch.dtype,
        every: tuple[str, ...],
        sloped: tuple[str, ...],
        room: int,
    ) -> tuple[Tensor, ...]:
        measured = Tiles(hidden, targets, PlainHead(weight, bias, cap), dtype).measure(every, direction=True)
        assert measured.direction is not None  # it was asked for
        ctx.save_for_backward(measured.direction.to(hidden.dtype))
        ctx.every, ctx.sloped = every, sloped
        return _outputs(ctx, measured, every, sloped)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        (direction,) = ctx.saved_tensors
        given = _given(ctx, slopes)
        gradient = (direction * given["logps"].unsqueeze(1)).to(direction.dtype) if given else None
        return (gradient, *(None,) * 8)


def _outputs(
    ctx: FunctionCtx, measured: Measured, every: tuple[str, ...], sloped: tuple[str, ...]
) -> tuple[Tensor, ...]:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(measured.values[name] for name in every if name not in sloped))
    return tuple(measured.values[name] for name in every)


def _given(ctx: Any, slopes: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
    pairs = zip(ctx.every, slopes, strict=True)
    return {name: slope for name, slope in pairs if slope is not None and name in ctx.sloped}


def as_given(gradients: Sequence[Tensor | None], like: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Gradients in the dtypes of what they belong to."""
    pairs = zip(gradients, like, strict=True)
    return tuple(None if one is None or of is None else one.to(of.dtype) for one, of in pairs)
