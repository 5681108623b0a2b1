"""Packed rows with the variable-length kernels of flash-attn, or those that torch itself brings.

A prompt with its first completion is one text, and each other completion is a text whose keys are those of
the prompt, gathered once more, and its own. These kernels align the last query with the last key, and so
count windows by positions. Written without a GPU at hand: see ``tests/test_cuda_attention.py``.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from po.engine.attention import Scoring, Segments
from po.engine.packing import Group

_WIDEST = 256  # of heads, in the kernels


@dataclass(frozen=True)
class _Texts:
    """Where the texts of a packed row begin and end.

    Attributes:
        query_ends: 0 and the end of each text's queries, (texts + 1,).
        key_ends: likewise of its keys, after the gathering.
        longest: queries and keys of the longest text.
        gathered: which tokens' keys, in order, (keys,); None for all as they stand.
        tokens: without what fills the row up.
    """

    query_ends: Tensor
    key_ends: Tensor
    longest: tuple[int, int]
    gathered: Tensor | None
    tokens: int


@dataclass(frozen=True)
class Varlen:
    """A kernel for texts of any lengths, side by side.

    Attributes:
        call: ``flash_attn_varlen_func`` of flash-attn or ``varlen_attn`` of torch.
        own: of torch.
    """

    call: Callable[..., Any]
    own: bool

    def suits(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> bool:
        """Whether it can give what is asked for; arguments as of ``rows``."""
        takes = _parameters(self.call)
        width = query.shape[-1]
        return (
            query.dtype in (torch.bfloat16, torch.float16)
            and width == value.shape[-1]
            and width <= _WIDEST
            and width % 8 == 0
            and "window_size" in takes
            and (not self.own or "scale" in takes)
            and (scoring.cap is None or "softcap" in takes)
            and (scoring.dropout == 0 or "dropout_p" in takes)
            and scoring.sinks is None
        )

    def rows(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scoring: Scoring) -> Tensor:
        """Attention within the groups of a packed row; arguments and result as of ``attend_by_groups``.

        Raises:
            ValueError: sinks are given.
        """
        if scoring.sinks is not None:
            raise ValueError("variable-length kernels have no attention sinks")
        device = query.device
        texts = segments.once(("texts", device), lambda: _texts(segments.row.groups, device))
        window = -1 if segments.window is None else segments.window - 1
        own, shared = query[0].transpose(0, 1)[: texts.tokens], [key, value]
        if self.own and "enable_gqa" not in _parameters(self.call):
            shared = [one.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for one in shared]
        keys, values = (_gathered(one[0].transpose(0, 1), texts) for one in shared)
        more: dict[str, Any]
        if self.own:
            more = {"scale": scoring.scaling}
            if keys.shape[1] != own.shape[1]:
                more["enable_gqa"] = True
        else:
            more = {"softmax_scale": scoring.scaling, "causal": True, "dropout_p": scoring.dropout}
            if scoring.cap is not None:
                more["softcap"] = scoring.cap
        # A window of 0 to the right is what either package understands as causal.
        found: Tensor = self.call(
            own,
            keys,
            values,
            texts.query_ends,
            texts.key_ends,
            *texts.longest,
            window_size=(window, 0),
            **more,
        )
        filled = F.pad(found, (0, 0, 0, 0, 0, query.shape[2] - texts.tokens))
        return filled.transpose(0, 1).unsqueeze(0)


def flash_attn_kernel() -> Varlen:
    """That of the package flash-attn.

    Raises:
        ImportError: it is not installed, or does not fit the installed torch.
    """
    return Varlen(importlib.import_module("flash_attn").flash_attn_varlen_func, own=False)


def torch_kernel() -> Varlen | None:
    """That of torch; None in versions before 2.10."""
    try:
        return Varlen(importlib.import_module("torch.nn.attention.varlen").varlen_attn, own=True)
    except ImportError:
        return None


@functools.cache
def _parameters(call: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(call).parameters)


def _gathered(tokens: Tensor, texts: _Texts) -> Tensor:
    if texts.gathered is None:
        return tokens[: texts.tokens]
    return tokens.index_select(0, texts.gathered)


def _texts(groups: tuple[Group, ...], device: torch.device) -> _Texts:
    queries: list[int] = []
    seen: list[Tensor] = []
    for group in groups:
        first, *others = group.completions or (0,)
        own = group.start + group.prompt + first
        queries.append(group.prompt + first)
        seen.append(torch.arange(group.start, own))
        for length in others:
            queries.append(length)
            prompt = torch.arange(group.start, group.start + group.prompt)
            seen.append(torch.cat([prompt, torch.arange(own, own + length)]))
            own += length
    keys = [len(one) for one in seen]

    def ends(lengths: list[int]) -> Tensor:
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)

    return _Texts(
        query_ends=ends(queries),
        key_ends=ends(keys),
        longest=(max(queries), max(keys)),
        gathered=None if keys == queries else torch.cat(seen).to(device),
        tokens=sum(queries),
    )
