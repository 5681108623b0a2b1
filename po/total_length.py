"""A limit on prompt and completion together: the prompt gives way first."""

from typing import Any

from po.collate import completions_of
from po.data.truncate import Truncation, truncate_completion, truncate_prompt
from po.rows import Row

_ONE = ("chosen_ids", "rejected_ids", "completion_ids")


def total_length(row: Row) -> int:
    """Tokens of the prompt and the longest completion of a row of token ids."""
    found = completions_of(row, "ranked" if "candidates_ids" in row else "unpaired")
    return len(row["prompt_ids"]) + max(map(len, found))


def within_total(row: Row, limit: int, truncation: Truncation, **ends: Any) -> Row:
    """A row whose prompt and longest completion have at most ``limit`` tokens together.

    The prompt is cut until the longest completion fits, but keeps half of the limit where it has that much;
    then completions lose their ends. All completions of a row keep one prompt.

    Args:
        row: of token ids.
        limit: in tokens, at least 2.
        truncation: which end of the prompt is kept.
        ends: tokens of the prompt that stay, as ``po.data.truncate.truncate_prompt`` takes them.

    Returns:
        The row, with ``*_truncated`` flags for what was cut; itself where nothing was.
    """
    total = total_length(row)
    if total <= limit:
        return row
    prompt = row["prompt_ids"]
    longest = total - len(prompt)
    kept = truncate_prompt(prompt, max(limit - longest, limit // 2), truncation, **ends)
    room = limit - len(kept)
    cut = row | {"prompt_ids": kept} | ({"prompt_truncated": True} if len(kept) < len(prompt) else {})
    for key in _ONE:
        if key in row and len(row[key]) > room:
            cut[key] = truncate_completion(row[key], room)
            cut[f"{key.removesuffix('_ids')}_truncated"] = True
    if any(len(ids) > room for ids in row.get("candidates_ids", ())):
        cut["candidates_ids"] = [truncate_completion(ids, room) for ids in row["candidates_ids"]]
        cut["candidates_truncated"] = [len(ids) > room for ids in row["candidates_ids"]]
    return cut
