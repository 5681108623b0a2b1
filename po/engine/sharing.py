"""Whether a model's rows can be packed, with each prompt computed once: found out by trial."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from po.engine.attention import is_packed_name, packed_attention, packed_name
from po.engine.last_layer import restore_last_layer, trim_last_layer
from po.engine.packing import Packed, pack

_LAYERS = {"full_attention", "sliding_attention"}
_PROMPT, _OWN = 4, 3  # tokens of the trial's texts


def let_share(model: Any) -> bool:
    """Prepares a decoder-only language model for packed rows, if its answers stay the same; warns if not.

    A recurrent layer, say, would carry what it read of one completion into the next. So a prompt with two
    completions is packed and compared with the same texts in rows of their own, and changing one completion
    must leave the other as it was.

    Args:
        model: of transformers; its attention implementation is replaced by one that does the same, and takes
            packed rows too.

    Returns:
        Whether it can.
    """
    reason = _obstacle(model)
    if reason is None:
        return True
    warnings.warn(
        f"prompts are not shared and rows are padded, which is slower: {type(model).__name__} {reason}",
        stacklevel=3,
    )
    return False


def packed_states(
    model: Any,
    row: Packed,
    forward: Callable[..., Any] | None = None,
    read: Tensor | None = None,
    **more: Any,
) -> Any:
    """Output of a language model's body on a packed row; hidden states are (1, tokens, width).

    Args:
        model: that ``let_share`` has prepared.
        row: the packed row.
        forward: what is called; the model's body unless given.
        read: tokens whose hidden states are read; those of others may be anything. None for all.
        more: for the model's body.
    """
    if not is_packed_name(model.config.get_text_config()._attn_implementation):
        raise RuntimeError(
            f"the attention of {type(model).__name__} was set anew after attach_engine; set it before"
        )
    with packed_attention(row, read):
        return (forward or model.base_model)(
            input_ids=row.ids, position_ids=row.positions, use_cache=False, **more
        )


def _obstacle(model: Any) -> str | None:
    """Why rows of a model cannot be packed."""
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        return "has an attention of its own"
    strange = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if strange or getattr(config, "attention_chunk_size", None):
        return f"has layers of {', '.join(sorted(strange)) or 'attention in chunks'}"
    before = config._attn_implementation
    if before is None:
        return "does not say how it attends"
    with trial_attention(model, config) as tried, _zeros_filled(model):
        reason = _trial(model, config, packed_name(tried or before))
    if reason is None:
        config._attn_implementation = packed_name(before)
    return reason


@torch.no_grad()
def _trial(model: Any, config: Any, name: str) -> str | None:
    """What goes wrong with a packed row; None where its hidden states are those of single rows.

    Args:
        model: of transformers.
        config: of the language model in it; gets the attention of that name.
        name: of an attention that takes packed rows.
    """
    first, last = config.vocab_size // 8, config.vocab_size // 2  # beyond are often marks of pictures
    texts = torch.linspace(first, last, _PROMPT + 3 * _OWN, device=model.device).long()
    prompt, own, other, third = torch.split(texts, [_PROMPT, _OWN, _OWN, _OWN])
    single = torch.stack([torch.cat([prompt, text]) for text in (own, other)])
    with submodules_evaluating(model):
        try:
            alone = model.base_model(input_ids=single, use_cache=False)[0]
            config._attn_implementation = name
            renamed = model.base_model(input_ids=single, use_cache=False)[0]
            both = _packed_trial(model, prompt, own, other)
            changed = _packed_trial(model, prompt, third, other)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it is, such rows are not for this model
            return f"takes no packed rows ({str(error).splitlines()[0][:120]})"
    expected = torch.cat([alone[0], alone[1, _PROMPT:]]).float()
    gaps = {
        "where its attention goes by another name": (renamed - alone).float().abs().max(),
        "where a prompt is shared": (both.float() - expected).abs().max(),
        "where another completion changes": (both[-_OWN:] - changed[-_OWN:]).float().abs().max(),
    }
    for where, gap in gaps.items():
        if not gap <= _tolerated(expected, both.dtype):
            return f"answers otherwise {where} (its states differ by {gap:.2g})"
    with submodules_evaluating(model):
        _trim(model, both, prompt, own, other)
    return None


def _trim(model: Any, tokens: Tensor, prompt: Tensor, *texts: Tensor) -> None:
    """Lets the last layer skip what is not read, if the states that are read stay the same."""
    read = torch.arange(_PROMPT - 1, len(tokens), device=tokens.device)
    trim_last_layer(model)
    try:
        found = _packed_trial(model, prompt, *texts, read=read)[read]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever it is, the layer stays as it was: that is right, and takes a little longer
        same = False
    else:
        same = bool((found - tokens[read]).abs().max() <= _tolerated(tokens, tokens.dtype))
    if not same:
        restore_last_layer(model)


def _tolerated(states: Tensor, dtype: torch.dtype) -> Tensor:
    return (1e-4 if dtype == torch.float32 else 4e-2) * states.abs().max()


def _packed_trial(model: Any, prompt: Tensor, *texts: Tensor, read: Tensor | None = None) -> Tensor:
    """Hidden states of a prompt and its completions, (tokens, width)."""
    ids = torch.stack([torch.cat([prompt, text]) for text in texts])
    completion = torch.ones_like(ids, dtype=torch.bool)
    completion[:, :_PROMPT] = False
    row = pack(ids, torch.ones_like(ids), completion, torch.zeros_like(ids[:, 0]))
    states: Tensor = packed_states(model, row, read=read)[0][0, : _PROMPT + len(texts) * _OWN]
    return states


@contextmanager
def trial_attention(model: Any, config: Any) -> Iterator[str | None]:
    """Within, a model attends as it does, or so that it can here; gives the name.

    FlashAttention wants half precision on CUDA, which weights need not have before training begins.

    Args:
        model: of transformers.
        config: of the language model in it; its attention is put back.
    """
    before = config._attn_implementation
    tried = before
    if is_packed_name(before):  # of a copied configuration, perhaps of another process
        packed_name(before)
    if before is not None and "flash" in before:
        leaves_out = getattr(config, "attn_logit_softcapping", None) or not model._supports_sdpa
        tried = "eager" if leaves_out else "sdpa"
    config._attn_implementation_internal = tried
    try:
        yield tried
    finally:
        config._attn_implementation_internal = before


@contextmanager
def _zeros_filled(model: Any) -> Iterator[None]:
    """Within, weights that are all 0 are small numbers: a gate of 0 would hide what is behind it."""
    hidden = [one for one in model.parameters() if one.is_floating_point() and not one.any()]
    kept = [one.data for one in hidden]
    generator = torch.Generator().manual_seed(0)
    for one in hidden:
        one.data = (0.1 * torch.randn(one.shape, generator=generator)).to(one.device, one.dtype)
    try:
        yield
    finally:
        for one, data in zip(hidden, kept, strict=True):
            one.data = data


@contextmanager
def submodules_evaluating(model: Any) -> Iterator[None]:
    """Within, nothing drops out; each submodule's mode is put back, they need not all have had one."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
