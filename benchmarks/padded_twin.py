"""DPO as TRL 1.16 computes it on CUDA, written plainly: the opponent where TRL is not installed.

Every pair is two padded rows, prompt and completion each; layers may be checkpointed; the head runs on
completion positions only, in tiles whose logits are computed again in the backward pass (8NVH FLOPs). TRL's
Triton kernels fold a tile faster than PyTorch does here, so on CUDA this is a little slower than TRL in the
head and equal elsewhere. On a CPU TRL itself runs its head on every position, so there this is the faster.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.our_steps import PARAMS
from benchmarks.sides import Side

TILE_LOGITS = 4096 * 32_768  # TRL's tile: tokens x vocabulary


def twin_dpo(
    name: str,
    model: Any,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    live: Any = None,
    checkpointing: bool,
    full_logits: bool = False,
) -> Side:
    """A side that takes such steps.

    Args:
        name: for the table.
        model: the policy; it is copied.
        batches: as our collator makes them, chosen rows first.
        live: a reference that is asked in every step; stored values are used where it is None.
        checkpointing: of layers.
        full_logits: of every position at once, kept for the backward pass, in place of tiles.
    """
    policy = copy.deepcopy(model).train()
    if checkpointing:
        policy.gradient_checkpointing_enable()
    logps = _all_logps if full_logits else _tiled_logps

    def step(number: int) -> Tensor:
        batch = {key: value.to(policy.device) for key, value in batches[number].items()}
        if live is None:
            reference = batch["reference_logps"]
        else:
            with torch.no_grad():
                reference = logps(live, batch)
        chosen, rejected = (logps(policy, batch) - reference).chunk(2)
        loss = -F.logsigmoid(PARAMS["dpo"]["beta"] * (chosen - rejected)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return Side(name, policy, step)


def _tiled_logps(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Summed log-probabilities of completions, (rows,)."""
    ids, scored = batch["input_ids"], batch["completion_mask"][:, 1:]
    hidden = model.model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False)[0]
    picked, targets = hidden[:, :-1][scored], ids[:, 1:][scored]
    tokens = max(1, TILE_LOGITS // model.config.vocab_size)
    parts = zip(torch.split(picked, tokens), torch.split(targets, tokens), strict=True)
    found = [checkpoint(_tile, *part, model.lm_head, use_reentrant=False) for part in parts]
    row = scored.nonzero(as_tuple=True)[0]
    return torch.zeros(len(ids), device=ids.device).index_add(0, row, torch.cat(found))


def _tile(hidden: Tensor, targets: Tensor, head: Any) -> Tensor:
    return -F.cross_entropy(head(hidden).float(), targets, reduction="none")


def _all_logps(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """The same with the logits of every position."""
    ids, scored = batch["input_ids"], batch["completion_mask"][:, 1:]
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[:, :-1]
    tokens = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    found: Tensor = (tokens * scored).sum(dim=1)
    return found
