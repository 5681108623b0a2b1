"""The load-balancing loss of mixtures of experts."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from po.faults import InputFault


def has_router(model: Any) -> bool:
    """Whether a language model routes tokens to experts and has a loss that balances them.

    Args:
        model: of transformers, with adapters or without.

    Raises:
        InputFault: an encoder-decoder model does; its loss is not offered.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if model.config.is_encoder_decoder and "router_aux_loss_coef" in vars(model.config):
        raise InputFault(
            f"{type(model).__name__} is an encoder-decoder with experts, whose load-balancing loss is not "
            "offered; set router_aux_loss_coef to 0 to train without it"
        )
    return _balance_of(model) is not None and _experts_of(model) is not None


def balance_loss(model: Any, gates: Sequence[Sequence[Tensor]]) -> Tensor:
    """How unevenly tokens are spread over experts, by the function of the model's own module; 1 layer: >= 1.

    Args:
        model: a mixture of experts of transformers.
        gates: logits of the routers, (tokens, experts), padding left out; for each part of the batch one
            tensor a layer.

    Returns:
        One number, a mean over tokens; not yet weighted.

    Source: Fedus, Zoph, Shazeer 2021 (Switch Transformer), arXiv:2101.03961.
    """
    layers = tuple(torch.cat(parts) for parts in zip(*gates, strict=True))
    balance, holder = _balance_of(model), _experts_of(model)
    assert balance is not None and holder is not None
    found: Tensor = balance(layers, holder.num_experts, holder.num_experts_per_tok)
    return found


def _experts_of(model: Any) -> Any:
    """What has the numbers of experts, in all and for a token; None without experts."""
    holders = (model, model.config.get_text_config())
    names = ("num_experts", "num_experts_per_tok")
    return next((h for h in holders if all(getattr(h, name, None) for name in names)), None)


def _balance_of(model: Any) -> Any:
    """``load_balancing_loss_func`` of the module that defines the model's class, or of one of its bases.

    None where it has other arguments than here: gates, number of experts, experts of a token.
    """
    modules = (sys.modules[base.__module__] for base in type(model).__mro__)
    found = next((f for m in modules if (f := getattr(m, "load_balancing_loss_func", None))), None)
    names = list(inspect.signature(found).parameters)[1:3] if found is not None else []
    return found if names == ["num_experts", "top_k"] else None
