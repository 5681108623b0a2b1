"""Rows of token ids -> padded tensors: the chosen completions first, the rejected ones below them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PER_PAIR = ("reference_chosen", "reference_rejected", "chosen_score", "rejected_score")


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of B pairs: 2B rows, row i chosen and row B + i rejected, padded on the right.

    Padding is token 0 and masked, so it needs no token of its own.

    Attributes:
        inputs: the method's inputs; those of ``PER_PAIR`` among them are copied from the rows.
    """

    inputs: tuple[str, ...] = ()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collates rows with ``prompt_ids``, ``chosen_ids``, ``rejected_ids``.

        Returns:
            ``input_ids``, ``attention_mask``, ``completion_mask``, each (2B, length); per-pair inputs, (B,).
        """
        batch = _padded(
            [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        )
        for name in PER_PAIR:
            if name in self.inputs:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        return batch


def _padded(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Tensor]:
    """(prompt, completion) ids -> ids and the two masks, each (rows, length)."""
    length = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    attention = torch.zeros_like(ids)
    completion_mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(pairs):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        attention[row, :end] = 1
        completion_mask[row, len(prompt) : end] = True
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion_mask}
