"""Completions of other prompts, by which KTO measures how far the policy has moved."""

from collections.abc import Sequence

from po.faults import InputFault
from po.rows import Row
from po.training.collate import completions_of


def with_mismatched(rows: Sequence[Row]) -> list[Row]:
    """The rows with ``mismatched_ids``: the completions of the row before, for each of their own.

    The first row takes those of the last. Where the row before has the same prompt, the one before that is
    taken, and so on. Partners are fixed before training, so their reference values can be stored, and a
    micro-batch of one row has one too.

    Args:
        rows: of token ids.

    Raises:
        InputFault: all rows have one prompt.
    """
    prompts = [_prompt(row) for row in rows]
    if len(set(prompts)) < 2:
        raise InputFault(
            "all rows have the same prompt, so no completion is foreign to it; kto needs at least two prompts"
        )
    extended = []
    for index, row in enumerate(rows):
        other = index - 1
        while prompts[other] == prompts[index]:
            other -= 1
        foreign = completions_of(rows[other], "unpaired")
        own = completions_of(row, "unpaired")
        extended.append(row | {"mismatched_ids": [foreign[k % len(foreign)] for k in range(len(own))]})
    return extended


def _prompt(row: Row) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What is answered: token ids, and pictures where there are some."""
    return tuple(row["prompt_ids"]), tuple(map(str, row.get("images") or ()))
