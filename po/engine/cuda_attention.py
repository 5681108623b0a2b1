"""Attention of packed rows on CUDA: the fastest kernel that is there and proves right.

In this order: flash-attn where a model asks for it; the variable-length kernel of torch, where precision is
half and no scores are capped; FlexAttention; attention group by group, which works anywhere. The first two
know no attention sinks. Before a kernel is first used for heads of some kind, it is tried: values and
gradients of a small row must be those of the grouped form. An error in the backward pass of a training step
would come too late to choose another.

No GPU was at hand when this was written: what is tested are values and gradients on a CPU, with stand-ins for
kernels that need CUDA; tests marked ``gpu`` wait for one.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.utils.checkpoint import CheckpointError

from po.engine.attention import Scoring, Segments
from po.engine.flex_rows import flex_rows, flex_suits
from po.engine.group_attention import attend_by_groups
from po.engine.packing import Packed, pack
from po.engine.varlen_rows import flash_attn_kernel, torch_kernel

_TOLERATED = {torch.float32: 5e-3}  # of the largest value; TF32 may be in use
_TOLERATED_HALF = 5e-2
_TRIAL_WINDOW = 40  # tokens
_FAULTS = (RuntimeError, ValueError, TypeError, ImportError, OSError, FailOnRecompileLimitHit)
"""Of compilers and drivers. Not every exception is one: gradient checkpointing ends a pass by its own."""
_NO_FAULTS = (torch.OutOfMemoryError, CheckpointError)
"""Errors of these classes that come through a kernel, but are none of its own: memory that runs out, and a
layer that is recomputed otherwise than it was computed."""
_works: dict[Any, bool] = {}  # what was found out, by kernel and kind of heads


@dataclass(frozen=True)
class _Kernel:
    name: str
    suits: Callable[..., bool]
    rows: Callable[..., Tensor]


@functools.cache
def cuda_attention(plain: str) -> Callable[..., Tensor]:
    """Attention for packed rows on CUDA, with arguments and result of ``attend_by_groups``.

    A kernel that fails is given up for good, with a warning. Memory that runs out is no such failure, nor is
    what gradient checkpointing finds wrong: these errors go on to the caller.

    Args:
        plain: the attention implementation of transformers that a model asks for.
    """
    return functools.partial(_attend, _kernels(plain))


def _kernels(plain: str) -> tuple[_Kernel, ...]:
    found = []
    if plain.startswith("flash_attention"):
        try:
            flash = flash_attn_kernel()
            found.append(_Kernel("flash-attn", flash.suits, flash.rows))
        except (ImportError, OSError, AttributeError) as error:
            warnings.warn(
                f"packed rows attend without flash-attn ({_line(error)}); torch's kernels are used",
                stacklevel=2,
            )
    own = torch_kernel()
    if own is not None:
        found.append(_Kernel("torch's variable-length attention", own.suits, own.rows))
    return (*found, _Kernel("FlexAttention", flex_suits, flex_rows))


@torch.compiler.disable  # type: ignore[untyped-decorator]  # kernels are compiled by themselves
def _attend(
    kernels: tuple[_Kernel, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scoring: Scoring,
) -> Tensor:
    query, key, value = _as_autocast(query, key, value)
    given = (query, key, value, segments, scoring)
    asked = (query, key, value, scoring)
    sinks = None if scoring.sinks is None else scoring.sinks.dtype
    sizes = (tensor.shape[i] for tensor in (query, key, value) for i in (1, 3))
    kind = (query.device, query.dtype, scoring.cap, sinks, *sizes)
    with torch.autocast(query.device.type, enabled=False):
        for index, kernel in enumerate(kernels):
            if not kernel.suits(*asked) or not _works.get((kernel, kind), True):
                continue
            fault = None if (kernel, kind) in _works else _fault(kernel, *asked)
            if fault is None:
                found = _attempt(kernel, given)
                if isinstance(found, Tensor):
                    _works[kernel, kind] = True
                    return found
                fault = found
            _works[kernel, kind] = False
            following = [one.name for one in kernels[index + 1 :] if one.suits(*asked)]
            instead = following[0] if following else "the slower grouped attention"
            warnings.warn(f"{kernel.name} is given up, {instead} is used: {fault}", stacklevel=2)
        if scoring.dropout:
            _say_of_dropout()
        return attend_by_groups(*given)


@functools.cache
def _say_of_dropout() -> None:
    """Once: kernels that have no dropout are not given up, for they may be asked without it."""
    warnings.warn("attention drops out, so the slower grouped attention is used", stacklevel=3)


def _attempt(kernel: _Kernel, given: tuple[Any, ...]) -> Tensor | str:
    """What a kernel gives, or why it gives nothing."""
    try:
        return kernel.rows(*given)
    except _NO_FAULTS:
        raise
    except _FAULTS as error:
        return _line(error)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the precision of autocast, as torch's own attention would have it."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def _fault(kernel: _Kernel, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> str | None:
    """What is wrong with values or gradients of a kernel, for heads like those given; None if nothing.

    A pass of its own, whoever calls: within gradient checkpointing or without gradients, and with random
    numbers that are nobody else's.
    """
    chance = torch.Generator().manual_seed(0)

    def drawn(like: Tensor, heads: int, width: int) -> Tensor:
        values = torch.randn(1, len(row.group), heads, width, generator=chance)
        return values.to(like.device, like.dtype).transpose(1, 2)

    def passed(rows: Callable[..., Tensor], inputs: list[Tensor], segments: Segments) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        sinks = None if scoring.sinks is None else leaves[3]
        how = Scoring(query.shape[-1] ** -0.5, scoring.cap, sinks=sinks)
        found = rows(*leaves[:3], segments, how)[:, :, :tokens]
        return [found.detach(), *torch.autograd.grad((found * weights.to(found.dtype)).sum(), leaves)]

    unhooked = torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept)
    with torch.inference_mode(False), torch.enable_grad(), unhooked:
        row = _trial_row(query.device)
        tokens = row.groups[-1].start + row.groups[-1].length
        inputs = [drawn(tensor, tensor.shape[1], tensor.shape[3]) for tensor in (query, key, value)]
        weights = drawn(query, query.shape[1], value.shape[3])[:, :, :tokens]
        if scoring.sinks is not None:
            inputs.append(torch.randn(query.shape[1], generator=chance).to(scoring.sinks))
        tolerated = _TOLERATED.get(query.dtype, _TOLERATED_HALF)
        for segments in (Segments(row), Segments(row, _TRIAL_WINDOW)):
            expected = passed(attend_by_groups, [tensor.float() for tensor in inputs], segments)
            try:
                found = passed(kernel.rows, inputs, segments)
            except _NO_FAULTS:
                raise
            except Exception as error:  # compilers and drivers raise errors of every class
                return _line(error)
            for one, other in zip(found, expected, strict=True):
                gap = (one.float() - other).abs().max() / other.abs().max()
                if not gap <= tolerated:
                    return f"it differs by {float(gap):.2g} of the largest value"
    return None


def _trial_row(device: torch.device) -> Packed:
    """Two prompts, with one and with three completions."""
    lengths = torch.tensor([[30, 7], [150, 90], [150, 60], [150, 130]], device=device)
    column = torch.arange(280, device=device)
    inside = column < lengths.sum(dim=1, keepdim=True)
    completion = inside & (column >= lengths[:, :1])
    owners = torch.tensor([0, 1, 1, 1], device=device)
    return pack(torch.zeros_like(inside, dtype=torch.long), inside.long(), completion, owners)
