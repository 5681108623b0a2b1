"""Token logits -> log-probabilities of completions; the only place with masks and shifts.

The language-model head runs on completion tokens only, in chunks whose logits fit ``CHUNK_BYTES``; a chunk's
logits are computed again in the backward pass, so the full logits of a batch never exist.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from po.lengths import length_groups

CHUNK_BYTES = 64 * 2**20  # of float32 logits
_SCORE_KEY = "completion_mask"
_TOLERATED_GAP = 1e-3  # of the head's logits, relative to the largest

Head = Callable[[Tensor], Tensor]


def token_logps(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    head: Head,
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
    pieces = list(zip(hidden.split(size), targets.split(size), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.cat([_chunk(h, t, head) for h, t in pieces])
    return torch.cat([_recomputed(h, t, head) for h, t in pieces])


def _recomputed(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    # The head draws no random numbers, so their state need not be kept for its second run.
    return checkpoint(_chunk, hidden, targets, head, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]


def _chunk(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits = head(hidden).float()
    return -F.cross_entropy(logits, targets, reduction="none")


def completion_logps(
    model: nn.Module,
    input_ids: Int[Tensor, "rows length"],
    attention_mask: Int[Tensor, "rows length"],
    completion_mask: Bool[Tensor, "rows length"],
) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Summed log-probability of each row's completion, in nats, and the number of its tokens.

    Token t is scored by the hidden state at t - 1. Prompt and padding contribute exactly 0; the
    end-of-sequence token of a completion counts, as it stands in the mask.

    Args:
        model: a decoder-only language model of transformers after ``attach_engine``, as it is or wrapped for
            distributed training.
        input_ids: prompt and completion, padded on the right.
        attention_mask: 1 where a token is.
        completion_mask: True on completion tokens.

    Raises:
        ValueError: a row has no completion token (an empty completion is a fault of the data), or its
            completion begins at position 0, where nothing predicts it.
    """
    lengths = completion_mask.sum(dim=1)
    unscorable = (lengths == 0) | completion_mask[:, 0]
    if bool(unscorable.any()):
        row = int(unscorable.nonzero()[0])
        if lengths[row] == 0:
            raise ValueError(f"row {row} of the batch has no completion token; remove empty completions")
        raise ValueError(
            f"the completion of row {row} starts at position 0, where no token predicts it; give it a prompt"
        )
    scores = model(input_ids=input_ids, attention_mask=attention_mask, completion_mask=completion_mask)
    return scores, lengths


def attach_engine(model: Any) -> Any:
    """Lets ``model(..., completion_mask=...)`` return summed completion log-probabilities, not logits.

    The call goes through the model's own ``forward``, so wrappers (DDP, FSDP, autocast) see it as any other
    call. Without ``completion_mask`` the model answers as before.

    Raises:
        ValueError: the engine's head does not reproduce the model's own logits (an architecture that scales
            or shifts them in a way that is not known here).
    """
    if "_plain_forward" not in model.__dict__:
        _check_head(model)
        model._plain_forward = model.forward
        model.forward = types.MethodType(_forward, model)
    return model


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for the model's ``forward``; with a completion mask, answers (rows,) log-probabilities."""
    mask = kwargs.pop(_SCORE_KEY, None)
    if mask is None:
        return self._plain_forward(*args, **kwargs)
    input_ids, attention_mask = kwargs["input_ids"], kwargs["attention_mask"]
    found, taken = [], []
    for rows, end in length_groups(attention_mask):
        found.append(_scores(self, input_ids[rows, :end], attention_mask[rows, :end], mask[rows, :end]))
        taken.append(rows)
    return torch.cat(found)[torch.cat(taken).argsort()]


def _scores(model: Any, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> Tensor:
    """Summed log-probability of each row's masked tokens, float32."""
    hidden = model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
    rows, before = mask[:, 1:].nonzero(as_tuple=True)
    head, vocabulary = _head(model)
    logps = token_logps(hidden[rows, before], input_ids[rows, before + 1], head, vocabulary)
    return logps.new_zeros(len(mask)).index_add(0, rows, logps)


def _head(model: Any) -> tuple[Head, int]:
    """Hidden state -> logits as the architecture computes them, and the vocabulary's size."""
    linear = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is None:
        return linear, linear.out_features
    return lambda hidden: torch.tanh(linear(hidden) / cap) * cap, linear.out_features


@torch.no_grad()
def _check_head(model: Any) -> None:
    """Compares the engine's logits with the model's own on a few tokens."""
    training = model.training
    model.eval()
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.get_text_config().vocab_size
    logits = model(input_ids=ids, use_cache=False).logits.float()
    head, _ = _head(model)
    ours = head(model.base_model(input_ids=ids, use_cache=False)[0]).float()
    model.train(training)
    gap = (logits - ours).abs().max().item()
    if not gap <= _TOLERATED_GAP * logits.abs().max().item():
        raise ValueError(
            f"{type(model).__name__}: logits of the log-prob engine differ from the model's own by {gap:.3g}"
            "; this architecture is not supported"
        )
