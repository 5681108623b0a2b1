"""Attention of packed rows on any device: group by group, or many short groups at a time.

A long group is a causal call for the prompt with its first completion, and one for each other completion,
which sees the prompt's keys and its own. Short groups are padded to one length and attend in one call with a
mask.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from po.engine.attention import Scoring, Segments
from po.engine.packing import Group

SHORT = 256  # tokens; longer groups attend one by one
_WASTE = 1.3  # of scores that padding may add
_MASK_ELEMENTS = 2**22  # of the masks of a call


def attend_by_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scoring: Scoring,
) -> Tensor:
    """Attention within the groups of a packed row.

    Args:
        query: (1, heads, tokens, width).
        key: (1, key heads, tokens, width); key heads divide heads.
        value: as ``key``.
        segments: the packed row, and the window.
        scoring: how weights come from scores; sinks are one more key of each query.

    Returns:
        (1, heads, tokens, width of values), of the dtype of ``value``. On a CPU bfloat16 is computed in
        float32: its kernel's backward pass takes twice as long in bfloat16.
    """
    narrow = value.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cpu" and (narrow or torch.is_autocast_enabled("cpu")):
        with torch.autocast("cpu", enabled=False):
            q, k, v = query.float(), key.float(), value.float()
            return attend_by_groups(q, k, v, segments, scoring).to(value.dtype)
    if not query.is_cuda and (heads := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(heads, dim=1), value.repeat_interleave(heads, dim=1)
    bins = segments.once("bins", lambda: _bins(segments.row.groups))
    sizes = [sum(group.length for group in one) for one in bins]
    rest = query.shape[2] - sum(sizes)
    pieces = [torch.split(tensor, [*sizes, rest], dim=2) for tensor in (query, key, value)]
    how = _How(segments, scoring)
    found: list[Tensor] = []
    for index, one in enumerate(bins):
        q, k, v = (piece[index] for piece in pieces)
        found += how.one(index, one[0], q, k, v) if len(one) == 1 else [how.padded(index, one, q, k, v)]
    if rest:
        found.append(pieces[2][-1].new_zeros(1, query.shape[1], rest, value.shape[-1]))
    return torch.cat(found, dim=2)


@dataclass(frozen=True)
class _How:
    segments: Segments
    scoring: Scoring

    @property
    def usual(self) -> bool:
        """Whether torch's own attention knows such scores."""
        return self.scoring.cap is None and self.scoring.sinks is None

    def one(self, index: int, group: Group, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        """A group by itself; outputs in the order of its tokens."""
        first, *others = group.completions or (0,)
        sizes = [group.prompt + first, *others]
        window = self.segments.window
        causal = window is None or window >= sizes[0]
        queries, keys, values = (torch.split(tensor, sizes, dim=2) for tensor in (q, k, v))
        mask = None if causal and self.usual else self._mask((index, 0), q, 0, sizes[0])
        found = [self._scored(queries[0], keys[0], values[0], mask)]
        for part, length in enumerate(others, start=1):
            mask = self._mask((index, part), q, group.prompt, length)
            seen_keys, seen_values = (
                torch.cat([both[0][:, :, : group.prompt], both[part]], dim=2) for both in (keys, values)
            )
            found.append(self._scored(queries[part], seen_keys, seen_values, mask))
        return found

    def padded(self, index: int, groups: list[Group], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Several groups in one call."""
        once, window = self.segments.once, self.segments.window
        place, inside = once(("place", index), lambda: _places(groups, q.device))
        mask = once(
            ("mask", index, window, q.dtype),
            lambda: _additive(self._seen_in_groups(groups, place, inside), q.dtype).unsqueeze(1),
        )
        padded: Callable[..., Tensor] = _Padded.apply  # torch gives no types
        unpadded: Callable[..., Tensor] = _Unpadded.apply
        queries, keys, values = (padded(tensor, place, inside) for tensor in (q, k, v))
        return unpadded(self._scored(queries, keys, values, mask), inside)

    def _scored(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        how = self.scoring
        scaling, cap, dropout, sinks = how.scaling, how.cap, how.dropout, how.sinks
        if self.usual:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
                **({"enable_gqa": True} if k.shape[1] != q.shape[1] else {}),
            )  # fmt: skip
        if k.shape[1] != q.shape[1]:
            k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
        scores = q @ k.transpose(2, 3) * (scaling if cap is None else scaling / cap)
        scores = scores if cap is None else torch.tanh(scores) * cap
        scores = scores if mask is None else scores + mask
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(q.dtype).view(1, -1, 1, 1).expand(*q.shape[:3], 1)], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        return F.dropout(weights, dropout)[..., : k.shape[2]] @ v

    def _mask(self, name: tuple[int, int], q: Tensor, before: int, length: int) -> Tensor:
        """For ``length`` tokens after ``before`` that they all see, but for the window."""
        window = self.segments.window

        def make() -> Tensor:
            own = torch.arange(before, before + length, device=q.device).unsqueeze(1)
            other = torch.arange(before + length, device=q.device)
            seen = other <= own
            return _additive(seen if window is None else seen & (own - other < window), q.dtype)

        found: Tensor = self.segments.once(("mask", name, window, q.dtype), make)
        return found

    def _seen_in_groups(self, groups: list[Group], place: Tensor, inside: Tensor) -> Tensor:
        """Who sees whom in padded groups, (groups, longest, longest); padding sees itself."""
        row, start = self.segments.row, groups[0].start
        part, position = row.part[start + place], row.positions[0, start + place]
        order = torch.arange(place.shape[1], device=place.device)
        seen = (order <= order.unsqueeze(1)) & inside.unsqueeze(1)
        seen = seen & ((part.unsqueeze(1) == 0) | (part.unsqueeze(1) == part.unsqueeze(2)))
        if self.segments.window is not None:
            seen = seen & (position.unsqueeze(2) - position.unsqueeze(1) < self.segments.window)
        return seen | torch.eye(place.shape[1], dtype=torch.bool, device=place.device)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -math.inf)


def _bins(groups: tuple[Group, ...]) -> list[list[Group]]:
    """Neighbours that attend together; groups come sorted by length."""
    found: list[list[Group]] = []
    needed = 0  # scores of the last bin without padding
    for group in groups:
        length = group.length
        last = found[-1] if found else []
        padded = (len(last) + 1) * length**2
        if last and length <= SHORT and padded <= min(_MASK_ELEMENTS, _WASTE * (needed + length**2)):
            last.append(group)
            needed += length**2
        else:
            found.append([group])
            needed = length**2
    return found


def _places(groups: list[Group], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the tokens of padded groups stand in the bin, and which are none; both (groups, longest)."""
    lengths = torch.tensor([group.length for group in groups], device=device).unsqueeze(1)
    starts = torch.tensor([0, *accumulate(g.length for g in groups[:-1])], device=device).unsqueeze(1)
    order = torch.arange(int(lengths.max()), device=device)
    inside = order < lengths
    return torch.where(inside, starts + order, 0), inside


class _Padded(torch.autograd.Function):
    """(1, heads, tokens, width) -> (groups, heads, longest, width); the gradient of padding is dropped."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, place: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return row[0].transpose(0, 1)[place].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0].transpose(1, 2)[inside].transpose(0, 1).unsqueeze(0), None, None


class _Unpadded(torch.autograd.Function):
    """(groups, heads, longest, width) -> (1, heads, tokens, width)."""

    @staticmethod
    def forward(ctx: Any, batch: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return batch.transpose(1, 2)[inside].transpose(0, 1).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        flat = gradients[0][0].transpose(0, 1)
        padded = flat.new_zeros(*inside.shape, *flat.shape[1:])
        padded[inside] = flat
        return padded.transpose(1, 2), None
