"""Hidden states -> log-probabilities of tokens, and what else is read off the predicted distributions.

The full logits of a batch never exist. A head whose weights lie open (``po.engine.heads.plain_head``) runs in
tiles; any other is called on chunks whose logits fit ``CHUNK_BYTES``, and again in the backward pass. Values
are float32, whatever the model; after matrix products in float64 they stay in it.
"""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from po.engine.head_tiles import VALUES
from po.engine.heads import Head, plain_head
from po.engine.tiled_head import tiled_statistics

CHUNK_BYTES = 64 * 2**20  # of float32 logits


def token_statistics(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    head: Head,
    vocabulary: int,
    names: Iterable[str] = ("logps",),
    reference: Float[Tensor, "tokens vocabulary"] | None = None,
    n_chunks: Callable[[int], int] = int,
    logged: Iterable[str] = (),
) -> dict[str, Float[Tensor, " tokens"]]:
    """Values of the distributions that predict some tokens, one value per token, float32.

    Args:
        hidden: last hidden state at the position **before** each target.
        targets: token ids.
        head: hidden state -> logits, soft-capping included.
        vocabulary: width of the logits; decides the size of a chunk.
        names: which values: ``logps``, the log-probability of the target in nats; ``collision``, log Σ p²;
            ``entropy``, in units of log(vocabulary); ``kl``, KL(reference || p) in nats; ``mean_logit``, the
            mean over the vocabulary of the logits, which has no gradient.
        reference: log-probabilities of the reference's distributions, for ``kl``.
        n_chunks: how many chunks the head runs in, given how many are needed; the last ones may be empty. To
            be given where weights are sharded over processes, and only there: the head is then called as a
            module.
        logged: more values, without gradients.
    """
    names = tuple(names)
    logged = tuple(name for name in logged if name not in names)
    plain = plain_head(head) if n_chunks is int else None
    if plain is not None and not {*names, *logged} - {*VALUES}:
        return tiled_statistics(hidden, targets, plain, names, logged, CHUNK_BYTES)
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    parts = [slice(i * size, (i + 1) * size) for i in range(n_chunks(max(1, -(-len(hidden) // size))))]
    pieces = [(hidden[p], targets[p], None if reference is None else reference[p]) for p in parts]
    if len(pieces) == 1 or not torch.is_grad_enabled():
        found = [_chunk(h, t, r, head, names, logged) for h, t, r in pieces]
    else:
        found = [_recomputed(h, t, r, head, names, logged) for h, t, r in pieces]
    pairs = zip((*names, *logged), zip(*found, strict=True), strict=True)
    return {name: torch.cat(parts) for name, parts in pairs}


def distributions(hidden: Float[Tensor, "tokens width"], head: Head) -> Float[Tensor, "tokens vocabulary"]:
    """Log-probabilities of all tokens of the vocabulary, in nats, float32."""
    return F.log_softmax(head(hidden).float(), dim=-1)


def _recomputed(
    hidden: Tensor,
    targets: Tensor,
    reference: Tensor | None,
    head: Head,
    names: tuple[str, ...],
    logged: tuple[str, ...],
) -> list[Tensor]:
    # The head draws no random numbers, so their state need not be kept for its second run.
    return checkpoint(  # type: ignore[no-any-return]
        _chunk, hidden, targets, reference, head, names, logged, use_reentrant=False, preserve_rng_state=False
    )


def _chunk(
    hidden: Tensor,
    targets: Tensor,
    reference: Tensor | None,
    head: Head,
    names: tuple[str, ...],
    logged: tuple[str, ...],
) -> list[Tensor]:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = [of_logits(name, logits, targets, reference) for name in names]
    with torch.no_grad():
        return found + [of_logits(name, logits, targets, reference) for name in logged]


def of_logits(
    name: str,
    logits: Float[Tensor, "*shape vocabulary"],
    targets: Int[Tensor, "*shape"],
    reference: Float[Tensor, "*shape vocabulary"] | None = None,
) -> Float[Tensor, "*shape"]:
    """One value per token out of its logits; see ``token_statistics`` for the names."""
    if name == "logps":
        flat = -F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(targets.shape)
    if name == "mean_logit":
        return logits.detach().mean(dim=-1)
    if name == "collision":
        return torch.logsumexp(2 * logits, dim=-1) - 2 * torch.logsumexp(logits, dim=-1)
    logps = F.log_softmax(logits, dim=-1)
    if name == "entropy":
        return -(logps.exp() * logps).sum(dim=-1) / math.log(logits.shape[-1])
    if name == "kl" and reference is not None:
        return (reference.exp() * (reference - logps)).sum(dim=-1)
    raise ValueError(f"there is no value '{name}' of a token's distribution, or it lacks the reference's")
