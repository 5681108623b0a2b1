"""Packed rows with FlexAttention: one fused kernel that skips blocks where nobody sees anybody.

Whom a token sees is two stretches of the row: of its prompt, and from the start of its own text to itself.
Windows only shorten them. So masks are three numbers a token, and neither a batch nor a window needs a kernel
of its own; the length of a row does. Written without a GPU at hand: see ``tests/test_cuda_attention.py`` for
what was checked on a CPU.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from po.engine.attention import Scoring, Segments

_BLOCK = 128  # tokens
_SMALLEST = 256  # tokens; smaller rows would get another kernel, made for decoding
_RECOMPILES = (
    64  # allowed: 16 lengths up to 8192 tokens, with and without gradients, and room for a second cap
)
_known: set[Any] = set()  # what kernels were asked for

Scored = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def flex_suits(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> bool:
    """Whether FlexAttention can give what is asked for; arguments as of ``flex_rows``."""
    return scoring.dropout == 0


def flex_rows(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scoring: Scoring) -> Tensor:
    """Attention within the groups of a packed row; arguments and result as of ``attend_by_groups``.

    Tokens that fill a row up see themselves alone.

    Raises:
        ValueError: dropout is asked for.
        ImportError: sinks are given, and torch is too old to give the sums that they need.
    """
    scaling, cap, sinks = scoring.scaling, scoring.cap, scoring.sinks
    if scoring.dropout:
        raise ValueError("FlexAttention has no dropout")
    tokens = query.shape[2]
    length = filled_length(tokens)
    mask = segments.once(
        ("flex", segments.window, query.device), lambda: row_mask(segments, length, query.device)
    )
    rows = [_filled(tensor, length) for tensor in (query, key, value)]
    tracked = torch.is_grad_enabled(), *(row.requires_grad for row in rows)
    kind = (tracked, scaling, cap, sinks is None, query.device, *((row.shape, row.dtype) for row in rows))
    more: dict[str, Any] = {"enable_gqa": True} if key.shape[1] != query.shape[1] else {}
    if sinks is not None:
        more["return_aux"] = _sums_of_scores()
    with _compiling(kind in _known):
        found = _compiled()(
            *rows, score_mod=None if cap is None else _capped(cap), block_mask=mask, scale=scaling, **more
        )
    _known.add(kind)
    if sinks is not None:
        found = _with_sinks(found[0], found[1], sinks)
    kept: Tensor = found[:, :, :tokens]
    return kept


def filled_length(tokens: int) -> int:
    """Length for which a kernel is compiled: at most four lengths between a power of two and the next.

    Multiples of 256 up to 2048, of 512 up to 4096, and so on: 12 lengths up to 4096 tokens, 16 up to 8192.
    A row of more than 1024 tokens grows by a quarter at most, and blocks of filling cost nearly nothing.
    """
    step = max(_SMALLEST, (1 << (tokens - 1).bit_length()) // 8)
    return -(-tokens // step) * step


def row_mask(segments: Segments, length: int, device: torch.device) -> BlockMask:
    """Mask of a packed row that is filled up; its blocks are counted out, without a (length, length) tensor.

    Args:
        segments: the packed row, and the window.
        length: of the row with its filling; a multiple of 128.
        device: of the mask.
    """
    low, high, own = _seen(segments, length, device)
    index = torch.arange(length, device=device)
    edges = torch.arange(0, length, _BLOCK, device=device)

    def overlap(first: Tensor, end: Tensor) -> Tensor:
        shared = torch.minimum(end.unsqueeze(1), edges + _BLOCK) - torch.maximum(first.unsqueeze(1), edges)
        return shared.clamp(min=0).int()

    counts = (overlap(low, high) + overlap(own, index + 1)).view(len(edges), _BLOCK, -1).sum(dim=1)
    whole = counts == _BLOCK**2
    partial, full = ((counts > 0) & ~whole, whole)
    low, high, own = (bound.int() for bound in (low, high, own))

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ((key >= low[query]) & (key < high[query])) | ((key >= own[query]) & (key <= query))

    return BlockMask.from_kv_blocks(
        *_in_order(partial), *_in_order(full), BLOCK_SIZE=_BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _seen(segments: Segments, length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each token: which part [low, high) of its prompt it sees, and from where on its own text.

    A prompt's own text is the prompt.
    """
    row = segments.row
    extra = length - len(row.group)
    group, part = F.pad(row.group, (0, extra), value=-1), F.pad(row.part, (0, extra))
    position = F.pad(row.positions[0], (0, extra))
    facts = torch.tensor([[one.start, one.prompt] for one in row.groups], device=device)
    start, prompt = facts[group.clamp(min=0)].unbind(dim=1)
    index = torch.arange(length, device=device)
    completes = part > 0
    low, high = start, torch.where(completes, start + prompt, start)
    own = torch.where(completes, index - position + prompt, start)
    if segments.window is not None:
        low = torch.maximum(low, start + position - segments.window + 1)
        own = torch.maximum(own, index - segments.window + 1)
    fills = group < 0
    return low.masked_fill(fills, 0), high.masked_fill(fills, 0), torch.where(fills, index, own)


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and which, these first; with batch and head."""
    order = blocks.int().argsort(dim=1, descending=True, stable=True)
    return blocks.sum(dim=1).int()[None, None], order.int()[None, None]


def _filled(tensor: Tensor, length: int) -> Tensor:
    """Filled up with zeros, (1, heads, length, width); always in one memory layout, that of models.

    Another layout would be compiled anew.
    """
    tokens = F.pad(tensor.transpose(1, 2), (0, 0, 0, 0, 0, length - tensor.shape[2]))
    return tokens.contiguous().transpose(1, 2)


def _sums_of_scores() -> Any:
    """Asks FlexAttention for the logarithm of the sum of exp(score) over the keys of each query."""
    from torch.nn.attention.flex_attention import AuxRequest  # not in older versions, which do without sinks

    return AuxRequest(lse=True)


def _with_sinks(found: Tensor, sums: Any, sinks: Tensor) -> Tensor:
    """The weights of all keys but the sink add up to sigmoid(log-sum - sink)."""
    share = torch.sigmoid(sums.lse.float().unsqueeze(3) - sinks.float().view(1, -1, 1, 1))
    return (found * share).to(found.dtype)


@functools.cache
def _capped(cap: float) -> Scored:
    def score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.tanh(score / cap) * cap

    return score


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """Compiled for each length by itself: with free lengths, a recomputed layer may keep other tensors.

    Past the limit of recompilations torch would go on with a slow form and say little: so it is raised, and
    reaching it is an error.
    """
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _RECOMPILES)
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return compiled


def _compiling(known: bool) -> Any:
    """Within a DDP model torch would split what it compiles, which it cannot do with FlexAttention."""
    config: Any = torch._dynamo.config
    return contextlib.nullcontext() if known else config.patch(optimize_ddp=False)
