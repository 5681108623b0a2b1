"""Attention over packed rows, registered with transformers.

A model whose attention is ``po_sdpa`` (or ``po_eager``, ...) works as with ``sdpa``, until it is called
within ``packed_attention``: then masks are ``Segments``, and each group of a prompt with its completions
attends to itself alone. How that is done is a matter of the device: ``po.engine.group_attention`` works
anywhere, ``po.engine.cuda_attention`` has kernels for CUDA.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from po.engine.packing import Packed

_PREFIX = "po_"
_current: ContextVar["Segments | None"] = ContextVar("segments", default=None)


class _Kept:
    """What was made once. FSDP copies dictionaries for each layer whose inputs it casts, but not this."""

    def __init__(self) -> None:
        self.found: dict[Any, Any] = {}


class Attended(Exception):
    """Leaves a layer at the end of its attention."""


@dataclass(eq=False)
class Reading:
    """A layer's attention to all tokens, (1, tokens, heads, width); None until it was computed."""

    found: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Segments:
    """Stands for the mask of a packed row: who attends to whom, and within which window.

    Attributes:
        row: the packed row.
        window: a token attends to itself and to this number less one before it; None to all before.
        read: tokens whose hidden states are read, (reads,); None for all.
        reading: given in a layer that goes on with the tokens of ``read`` (``po.engine.last_layer``).
        kept: masks and the like, made once for all layers; shared by all windows.
    """

    row: Packed
    window: int | None = None
    read: Tensor | None = None
    reading: Reading | None = None
    kept: _Kept = field(default_factory=_Kept)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gave when it was first asked for."""
        if key not in self.kept.found:
            self.kept.found[key] = make()
        return self.kept.found[key]


@dataclass(frozen=True, eq=False)
class Scoring:
    """How weights come from queries and keys.

    Attributes:
        scaling: of the scores.
        cap: scores are cap·tanh(score / cap), before the mask; None for none.
        dropout: chance of each weight.
        sinks: (heads,), scores of one more key, which every token sees and whose value is 0; they are neither
            scaled nor capped. None for no such key.
    """

    scaling: float
    cap: float | None = None
    dropout: float = 0.0
    sinks: Tensor | None = None


def packed_name(implementation: str) -> str:
    """Registers an attention that takes packed rows too, and returns its name.

    Args:
        implementation: of transformers, for all that is not packed (``sdpa``, ``eager``, ...).
    """
    name = implementation if implementation.startswith(_PREFIX) else f"{_PREFIX}{implementation}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        plain = name.removeprefix(_PREFIX)
        ALL_ATTENTION_FUNCTIONS.register(name, partial(_attend, plain))
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, partial(_mask, plain))
    return name


@contextlib.contextmanager
def packed_attention(row: Packed, read: Tensor | None = None) -> Iterator[None]:
    """Within, a model that makes its masks makes them for a packed row.

    Args:
        row: the packed row.
        read: tokens whose hidden states are read; None for all.
    """
    token = _current.set(Segments(row, read=read))
    try:
        yield
    finally:
        _current.reset(token)


def _mask(plain: str, *args: Any, local_size: int | None = None, **kwargs: Any) -> Any:
    segments = _current.get()
    if segments is None:
        window = {} if local_size is None else {"local_size": local_size}
        return ALL_MASK_ATTENTION_FUNCTIONS[plain](*args, **window, **kwargs)
    if kwargs.get("use_vmap"):  # transformers sets it where a model adds rules to the causal one
        raise TypeError("adds rules of its own to its mask")
    return replace(segments, window=local_size)


def _attend(
    plain: str, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers; see there for what it gives and takes."""
    if not isinstance(attention_mask, Segments):
        if _current.get() is not None:
            raise TypeError(f"{type(module).__name__} attends with a mask of its own making")
        own = sys.modules[type(module).__module__]
        function = ALL_ATTENTION_FUNCTIONS.get_interface(plain, getattr(own, "eager_attention_forward", None))
        with contextlib.nullcontext() if plain in _NAMELESS else _named(module.config, plain):
            result: tuple[Tensor, Tensor | None] = function(
                module, query, key, value, attention_mask, **kwargs
            )
        return result
    reading, read = attention_mask.reading, attention_mask.read
    if reading is not None and reading.found is not None and read is not None:
        return reading.found.index_select(1, read), None
    strange = {name for name, given in kwargs.items() if given is not None} - _KNOWN
    if strange or not kwargs.get("is_causal", True):
        raise TypeError(f"{type(module).__name__} attends with {', '.join(sorted(strange)) or 'no order'}")
    scoring = Scoring(
        scaling=kwargs.get("scaling") or query.shape[-1] ** -0.5,
        cap=kwargs.get("softcap"),
        dropout=kwargs.get("dropout", 0.0),
        sinks=kwargs.get("s_aux"),
    )
    for given, what in ((scoring.cap, "a cap on its scores"), (scoring.sinks, "attention sinks")):
        if plain == "sdpa" and given is not None:
            raise TypeError(f"{type(module).__name__} has {what}, which sdpa leaves out")
    found = _on_device(query, plain)(query, key, value, attention_mask, scoring)
    found = found.transpose(1, 2).contiguous()  # some models take a view of it
    if reading is not None:
        reading.found = found
        raise Attended
    return found, None


_NAMELESS = {"sdpa", "eager"}  # do not look for their name: other threads see the configuration too


@contextlib.contextmanager
def _named(config: Any, plain: str) -> Iterator[None]:
    """Within, a configuration names an attention of transformers, whose function may look there (flash)."""
    name = config._attn_implementation
    config._attn_implementation_internal = plain
    try:
        yield
    finally:
        config._attn_implementation_internal = name


_HEEDED = {"scaling", "softcap", "dropout", "s_aux", "is_causal"}
_NEEDLESS = {"sliding_window", "position_ids", "use_cache"}  # the mask or the keys have it
_OUTPUTS = {"output_attentions", "output_hidden_states", "output_router_logits", "return_dict"}
_KNOWN = _HEEDED | _NEEDLESS | _OUTPUTS
"""Others change what is computed (``block_indices``), in ways that are not known here."""


def _on_device(query: Tensor, plain: str) -> Callable[..., Tensor]:
    from po.engine.group_attention import attend_by_groups

    if query.is_cuda:
        from po.engine.cuda_attention import cuda_attention

        return cuda_attention(plain)
    return attend_by_groups


def is_packed_name(implementation: str | None) -> bool:
    """Whether an attention was registered by ``packed_name``."""
    return implementation is not None and implementation.startswith(_PREFIX)
