"""Token logits -> log-probabilities of completions; the only place with masks and shifts.

The language-model head runs on completion tokens only, in chunks whose logits fit ``CHUNK_BYTES``; a chunk's logits are
computed again in the backward pass, so the full logits of a batch never exist.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 64 * 2**20  # of float32 logits
_SCORE_KEY = "completion_mask"


def token_logps(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    head: Callable[[Tensor], Tensor],
    vocabulary: int,
) -> Float[Tensor, " tokens"]:
    """Log-probability of each target token, in nats, float32.

    Args:
        hidden: last hidden state at the position **before** each target.
        targets: token ids.
        head: hidden state -> logits, soft-capping included.
        vocabulary: width of the logits; decides the size of a chunk.
    """
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    pieces = [(hidden[i : i + size], targets[i : i + size]) for i in range(0, len(targets), size)]
    if len(pieces) == 1 or not torch.is_grad_enabled():
        found = [_chunk(h, t, head) for h, t in pieces]
    else:
        found = [checkpoint(_chunk, h, t, head, use_reentrant=False) for h, t in pieces]
    return torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)


def _chunk(hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    logits = head(hidden).float()
    return -F.cross_entropy(logits, targets, reduction="none")


def completion_logps(
    model: nn.Module,
    input_ids: Int[Tensor, "rows length"],
    attention_mask: Int[Tensor, "rows length"],
    completion_mask: Bool[Tensor, "rows length"],
) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Summed log-probability of each row's completion, in nats, and the number of its tokens.

    Token t is scored by the hidden state at t - 1. Prompt and padding contribute exactly 0; the end-of-sequence token of
    a completion counts, as it stands in the mask.

    Args:
        model: a decoder-only language model of transformers, as it is or wrapped for distributed training after
            ``attach_engine``.
        input_ids: prompt and completion, padded on the right.
        attention_mask: 1 where a token is.
        completion_mask: True on completion tokens.

    Raises:
        ValueError: a row has no completion token (an empty completion is a fault of the data), or its completion
            begins at position 0, where nothing predicts it.
    """
    lengths = completion_mask.sum(dim=1)
    if bool((lengths == 0).any()):
        row = int((lengths == 0).nonzero()[0])
        raise ValueError(f"row {row} of the batch has no completion token; empty completions are removed when data are prepared")
    if bool(completion_mask[:, 0].any()):
        raise ValueError("a completion starts at position 0, where no token predicts it; prompts need at least one token")
    scores = model(input_ids=input_ids, attention_mask=attention_mask, completion_mask=completion_mask)
    return scores, lengths


def attach_engine(model: Any) -> Any:
    """Lets ``model(..., completion_mask=...)`` return summed completion log-probabilities instead of logits.

    The call goes through the model's own ``forward``, so wrappers (DDP, FSDP, autocast) see it as any other call.
    Without ``completion_mask`` the model answers as before.

    Raises:
        ValueError: the engine's head does not reproduce the model's own logits (an architecture that scales or shifts
            them in a way that is not known here).
    """
    if "_plain_forward" not in model.__dict__:
        model._plain_forward = model.forward
        model.forward = types.MethodType(_forward, model)
        _check_head(model)
    return model


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    mask = kwargs.pop(_SCORE_KEY, None)
    if mask is None:
        return self._plain_forward(*args, **kwargs)
    input_ids = kwargs["input_ids"]
    hidden = self.base_model(**kwargs, use_cache=False).last_hidden_state
    scored = mask[:, 1:]
    head, vocabulary = _head(self)
    logps = token_logps(hidden[:, :-1][scored], input_ids[:, 1:][scored], head, vocabulary)
    rows = scored.nonzero()[:, 0]
    return torch.zeros(len(mask), device=logps.device, dtype=logps.dtype).index_add(0, rows, logps)


def _head(model: Any) -> tuple[Callable[[Tensor], Tensor], int]:
    """Hidden state -> logits as the architecture computes them, and the vocabulary's size."""
    linear = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is None:
        return linear, linear.out_features
    return lambda hidden: torch.tanh(linear(hidden) / cap) * cap, linear.out_features


@torch.no_grad()
def _check_head(model: Any) -> None:
    training = model.training
    model.eval()
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.get_text_config().vocab_size
    logits = model._plain_forward(input_ids=ids, use_cache=False).logits.float()
    head, _ = _head(model)
    ours = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    model.train(training)
    gap = (logits - ours).abs().max().item()
    if not gap <= 1e-3 * max(1.0, logits.abs().max().item()):
        name = type(model).__name__
        raise ValueError(f"{name}: logits of the log-prob engine differ from the model's own by {gap:.3g}; this architecture is not supported")

