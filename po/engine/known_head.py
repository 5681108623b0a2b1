"""The head of a model of transformers, and whether its logits are those of the model itself."""

import math
import warnings
from typing import Any

import torch

from po.engine.heads import OutputHead
from po.engine.sharing import submodules_evaluating, trial_attention

_TOLERATED_GAP = 1e-3  # of the head's logits, relative to the largest


def head_of(model: Any) -> tuple[OutputHead, int]:
    """Hidden state -> logits as the architecture computes them, and the vocabulary's size."""
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    return OutputHead(model.get_output_embeddings(), cap), config.vocab_size


def head_is_known(model: Any) -> bool:
    """Whether the engine's logits are the model's own; warns where they are not."""
    gap, largest = _head_gap(model)
    known = gap <= _TOLERATED_GAP * largest
    if not known:
        warnings.warn(
            f"{type(model).__name__} changes the logits of its head (by up to {gap:.3g}); its own logits are "
            "used, which takes more memory and time",
            stacklevel=3,
        )
    return known


@torch.no_grad()
def _head_gap(model: Any) -> tuple[float, float]:
    """For a few tokens: how far the engine's logits are from the model's own, and the largest of these."""
    if model.get_output_embeddings() is None or model.base_model is model:
        return math.inf, 1.0
    config = model.config.get_text_config()
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0) % config.vocab_size
    with submodules_evaluating(model), trial_attention(model, config):
        logits = model(input_ids=ids, use_cache=False).logits.float()
        head, _ = head_of(model)
        ours = head(model.base_model(input_ids=ids, use_cache=False)[0]).float()
    return (logits - ours).abs().max().item(), logits.abs().max().item()
