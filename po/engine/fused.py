"""Log-probabilities, loss and the head's gradients in one pass, for losses that are separable over examples.

Tokens come in chunks of whole examples. As soon as the values of a chunk's rows are known, so is the slope
of the loss at them, and the logits of the chunk turn into gradients before the next chunk begins. Logits are
computed once: 6 operations per token and number in the weights, against 8 where they are computed again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from po.engine.head_tiles import VALUES, Tiles
from po.engine.heads import PlainHead
from po.engine.logps import CHUNK_BYTES
from po.engine.tiled_head import as_given, product_dtype

LEAST_TOKENS = 128  # of a chunk that is not the last: below, reading the weights takes longer than using them

Values = Mapping[str, Tensor]
Slopes = Callable[[Values, Tensor], Values]


@dataclass(frozen=True, eq=False)
class Separable:
    """A loss of which each example has its own share.

    Attributes:
        example: of each row, from 0 on, (rows,).
        slopes: as ``fused_rows`` takes it.
    """

    example: Int[Tensor, " rows"]
    slopes: Slopes


def pays(vocabulary: int) -> bool:
    """Whether one pass is faster than computing logits again.

    With few tokens a chunk every chunk reads all weights for little work: on a CPU a matrix product over 128
    tokens reaches 0.8 of the speed of one over 640, which is what the second computation costs. The form of
    ``po.engine.logps`` then needs less memory too.
    """
    return CHUNK_BYTES // (4 * vocabulary) >= 2 * LEAST_TOKENS


def slopes_of(total: Callable[[Values], Tensor]) -> Slopes:
    """Slopes of a loss by autograd.

    Args:
        total: values of all rows by name, (rows,) each -> the summed loss. Separable over examples: of the
            values of other examples than those that are asked about only the shape is right, they are 0.

    Returns:
        What ``fused_rows`` takes; names on which the loss does not depend are left out.
    """

    def slopes(values: Values, rows: Tensor) -> Values:
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
            found = torch.autograd.grad(total(leaves), list(leaves.values()), allow_unused=True)
        return {name: one for name, one in zip(leaves, found, strict=True) if one is not None}

    return slopes


def fused_rows(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    row: Int[Tensor, " tokens"],
    example: Int[Tensor, " rows"],
    head: PlainHead,
    slopes: Slopes,
    names: Sequence[str] = ("logps",),
    chunk_bytes: int | None = None,
) -> tuple[Tensor, dict[str, Float[Tensor, " rows"]]]:
    """Values of rows, and a number whose gradient is the gradient of the loss.

    Of the number only the gradient means something: add ``surrogate - surrogate.detach()`` to the value of
    the loss, and multiply both by what the loss is multiplied by. The backward pass can run once.

    Args:
        hidden: last hidden state before each target, of completion tokens alone.
        targets: token ids.
        row: of each token, not decreasing; each row has a token.
        example: of each row, from 0 on; the rows of an example need not be neighbours.
        head: its weights. They, its bias and ``hidden`` get gradients where they want them.
        slopes: called as ``slopes(values, rows)`` once for each chunk, where no gradients are recorded: the
            values by name, (rows,), right for the given rows, and 0 or right for others; the indices of those
            rows. Returns derivatives of the summed loss by name, (rows,) each, read at those rows alone;
            names that the loss does not depend on may be missing.
        names: ``logps``, summed over a row's tokens; ``collision``, ``entropy``, ``mean_logit``, averaged.
        chunk_bytes: of the logits that may exist at once; ``po.engine.logps.CHUNK_BYTES`` unless given. What
            does not fit of an example, or of ``LEAST_TOKENS`` tokens, is computed twice.

    Returns:
        The number, which carries the gradient; the values by name, (rows,), without gradients.

    Raises:
        ValueError: a name that is not among these.
    """
    unknown = sorted({*names} - {*VALUES})
    if unknown:
        raise ValueError(f"the one-pass head has no value '{unknown[0]}'; it has: {', '.join(VALUES)}")
    dtype, room = product_dtype(hidden), CHUNK_BYTES if chunk_bytes is None else chunk_bytes
    with torch.autocast(hidden.device.type, enabled=False):
        surrogate, *values = _Fused.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head.bias, targets, row, example, head.cap, slopes, tuple(names), dtype, room
        )
    return surrogate, dict(zip(names, values, strict=True))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        row: Tensor,
        example: Tensor,
        cap: float | None,
        slopes: Slopes,
        names: tuple[str, ...],
        dtype: torch.dtype,
        room: int,
    ) -> tuple[Tensor, ...]:
        # the weights are read once a chunk, so they are rounded once for all
        head = PlainHead(weight.to(dtype), None if bias is None else bias.to(dtype), cap)
        wide = torch.promote_types(dtype, torch.float32)
        lengths = torch.bincount(row, minlength=len(example))
        needed = ctx.needs_input_grad[:3]
        found = [
            torch.zeros(of.shape, dtype=wide, device=of.device) if need and of is not None else None
            for of, need in zip((hidden, weight, bias), needed, strict=True)
        ]
        values = {name: torch.zeros(len(example), dtype=wide, device=hidden.device) for name in names}
        surrogate = torch.zeros((), dtype=wide, device=hidden.device)
        fitting = room // (head.vocabulary * dtype.itemsize)
        for tokens, rows in _chunks(row, example, max(fitting, LEAST_TOKENS)):
            tiles = Tiles(hidden[tokens], targets[tokens], head, dtype, room)
            measured, mine = tiles.measure(names), row[tokens]
            for name, value in values.items():
                value.index_add_(0, mine, _shares(name, measured.values[name], lengths[mine]))
            given = {name: slope.to(wide) for name, slope in slopes(values, rows).items() if name in values}
            for name, slope in given.items():
                surrogate += (slope[rows] * values[name][rows]).sum()
            by_token = {name: _shares(name, slope[mine], lengths[mine]) for name, slope in given.items()}
            gradient, *_ = tiles.gradients(measured, by_token, needed, (found[1], found[2]))
            if gradient is not None and found[0] is not None:
                found[0][tokens] = gradient
        ctx.found = as_given(found, (hidden, weight, bias))
        ctx.mark_non_differentiable(*values.values())
        return surrogate, *values.values()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.found is None:
            raise RuntimeError("the one-pass head has given its gradients away; run its forward pass again")
        found, ctx.found = ctx.found, None
        # reading a number off another device would wait for it
        if scale.device.type != "cpu" or scale.item() != 1.0:
            for one in found:
                one.mul_(scale) if one is not None else None
        return (*found, *(None,) * 8)


def _shares(name: str, value: Tensor, lengths: Tensor) -> Tensor:
    """What tokens contribute to their row, and just so: what of a row's slope is theirs."""
    return value if name == "logps" else value / lengths


def _chunks(row: Tensor, example: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of tokens and rows of as many whole examples as have ``most`` tokens, and of at least one."""
    of_token = example[row]
    tokens, rows = of_token.argsort(stable=True), example.argsort(stable=True)
    n_examples = int(example.max()) + 1 if len(example) else 0
    n_tokens = torch.bincount(of_token, minlength=n_examples).tolist()
    n_rows = torch.bincount(example, minlength=n_examples).tolist()
    ends, taken = [], 0
    for i in range(n_examples):
        if taken and taken + n_tokens[i] > most:
            ends.append(i)
            taken = 0
        taken += n_tokens[i]
    bounds = [0, *ends, n_examples]
    for first, last in zip(bounds, bounds[1:], strict=False):
        n_before, r_before = sum(n_tokens[:first]), sum(n_rows[:first])
        yield (
            tokens[n_before : n_before + sum(n_tokens[first:last])],
            rows[r_before : r_before + sum(n_rows[first:last])],
        )
