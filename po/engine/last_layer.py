"""The last layer works for the tokens whose hidden states are read, and for no others.

A loss reads the states that predict completions. Earlier layers need the states of the prompt too, for what
later ones attend to; behind the last layer's attention nobody asks for them. So that layer is called twice:
for all tokens, and left at the end of its attention; then for the tokens that are read, which get what the
attention has found for them. Its keys and its attention stay whole; projection and feed-forward, three
quarters of a layer, skip the prompts, forward and backward.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from po.engine.attention import Attended, Reading, Segments

_PAYS = 0.75  # of the tokens may be read: up to its attention, the layer is computed twice for these


def trim_last_layer(model: Any) -> None:
    """Lets the last layer skip what is not read of packed rows.

    Does nothing where none is found, or where others stand in for its forward already: hooks that move
    weights between devices, say, must not be left in the middle.

    Args:
        model: of transformers, with an attention that takes packed rows.
    """
    layer = _last_layer(model)
    if layer is not None and "forward" not in layer.__dict__:
        layer._whole_forward = layer.forward
        layer.forward = partial(_forward, layer)  # can be pickled, as a method that no class has cannot


def restore_last_layer(model: Any) -> None:
    """Takes back what ``trim_last_layer`` did."""
    layer = _last_layer(model)
    if layer is not None and "_whole_forward" in layer.__dict__:
        del layer.forward, layer._whole_forward


def _last_layer(model: Any) -> Any:
    """The last of the one list that has as many layers as the configuration says."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        one for one in model.base_model.modules() if isinstance(one, nn.ModuleList) and len(one) == count
    ]
    return lists[0][-1] if len(lists) == 1 else None


def _forward(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for the layer's ``forward``; tokens that are not read have the states of one that is."""
    segments = next((one for one in (*args, *kwargs.values()) if isinstance(one, Segments)), None)
    if segments is None or segments.read is None or torch.compiler.is_compiling():
        return layer._whole_forward(*args, **kwargs)
    read, tokens = segments.read, segments.row.ids.shape[1]
    if len(read) > _PAYS * tokens:
        return layer._whole_forward(*args, **kwargs)
    noted = replace(segments, reading=Reading())

    def call(change: Callable[[Any], Any]) -> Any:
        return layer._whole_forward(
            *(change(one) for one in args), **{name: change(one) for name, one in kwargs.items()}
        )

    with contextlib.suppress(Attended):
        call(lambda given: noted if given is segments else given)
    found = call(lambda given: noted if given is segments else _of_read(given, read, tokens))
    states, *others = found if isinstance(found, tuple) else (found,)
    # not 0: a norm without epsilon, which comes next, would have no gradient there
    unread = states[:, :1].detach().expand(1, tokens, *states.shape[2:])
    spread = unread.index_copy(1, read, states)
    return (spread, *others) if isinstance(found, tuple) else spread


def _of_read(given: Any, read: Tensor, tokens: int) -> Any:
    """What a layer is given for all tokens, for those that are read; anything else as it is."""
    if isinstance(given, tuple):
        return tuple(_of_read(one, read, tokens) for one in given)
    if isinstance(given, Tensor) and given.dim() > 1 and given.shape[:2] == (1, tokens):
        return given.index_select(1, read)
    return given
