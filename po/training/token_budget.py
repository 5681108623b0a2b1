"""How many tokens one forward and backward pass takes where nobody has said so."""

from typing import Any

import torch
from torch import nn

_ON_CPU = 2048  # tokens; more make no matrix product faster (benchmarks), and take more memory
_ON_CUDA = (1024, 16384)  # tokens: fewer leave the device idle, more gain nothing
_SHARE = 0.5  # of the free memory: the estimate below is rough


def automatic_budget(model: nn.Module, optimizer: Any, *, bf16: bool) -> int:
    """A number of tokens whose activations fit.

    On CUDA it is estimated from the memory that is free before the first step, less what gradients and the
    moments of an AdamW will take, and is a power of two, so that a little more or less changes nothing.

    Args:
        model: a language model of transformers on its device, sharded or not.
        optimizer: of torch; after a resume its moments are there already.
        bf16: it computes in bfloat16 under autocast.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return _ON_CPU
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + reusable - bytes_to_come(model, optimizer, bf16=bf16)
    return budget_for(free, bytes_per_token(model, bf16=bf16))


def budget_for(free: float, each: float) -> int:
    """The largest power of two within the bounds whose tokens take no more than a share of the memory.

    Args:
        free: bytes.
        each: bytes that a token takes.
    """
    smallest, tokens = _ON_CUDA
    while tokens > smallest and tokens * each > _SHARE * free:
        tokens //= 2
    return tokens


def bytes_per_token(model: Any, *, bf16: bool) -> float:
    """Roughly what a token's activations take between forward and backward pass, in bytes.

    Counted for layers of the usual kind: about 14 vectors of the model's width and 4 of the feed-forward's,
    in a mixture of all experts that a token goes to. With gradient checkpointing one layer is kept whole, of
    the others what goes in.
    """
    inner = getattr(model, "module", model)
    config = inner.config.get_text_config()
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    size = 2 if bf16 or inner.dtype in (torch.bfloat16, torch.float16) else 4
    layer = (14 * width + 4 * _feed_forward(config)) * size
    saving = bool(getattr(inner, "is_gradient_checkpointing", False))
    base = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    # where the engine does not know the head there are logits of all tokens, and their gradients
    logits = 0 if getattr(base, "_own_head", True) else (2 * size + 8) * int(config.vocab_size)
    return float(logits + (layer + layers * width * size if saving else layers * layer))


def _feed_forward(config: Any) -> int:
    """The width of the feed-forward part of a layer, of all experts together that a token goes to."""
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    wide = max(wide) if isinstance(wide, list | tuple) else wide  # Gemma 3n has one for each layer
    experts = getattr(config, "num_experts_per_tok", None) or 0
    each = getattr(config, "moe_intermediate_size", None) or wide
    return max(int(wide), int(experts) * int(each))


def bytes_to_come(model: nn.Module, optimizer: Any, *, bf16: bool) -> int:
    """What gradients, moments and copies of the weights that lie here will take, in bytes.

    Args:
        model: sharded or not.
        optimizer: of torch, reckoned to be AdamW. What it has already is not counted: it is not free.
        bf16: weights are copied to bfloat16 under autocast.
    """
    total = 0
    for parameter in model.parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        copies = (parameter.grad is None) + 2 * (not optimizer.state.get(parameter))
        size = copies * local.element_size() if parameter.requires_grad else 0
        copied = 2 if bf16 and local.element_size() == 4 else 0
        total += (size + copied) * local.numel()
    return total
