"""Cutting prompts and completions to a number of tokens, and saying which were cut."""

from dataclasses import dataclass
from typing import Literal

from po.faults import InputFault
from po.methods.hyperparameters import nearest

Truncation = Literal["keep_end", "keep_start"]
TRUNCATIONS: tuple[Truncation, ...] = ("keep_end", "keep_start")


@dataclass(frozen=True, slots=True)
class Truncated:
    """Ids within their limits.

    Attributes:
        prompt_ids: of the prompt.
        completion_ids: of the completion; without EOS where it was cut, because there it does not end.
        prompt_truncated: whether the prompt lost tokens.
        completion_truncated: whether the completion did.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    prompt_truncated: bool
    completion_truncated: bool


def truncate(
    prompt_ids: list[int],
    completion_ids: list[int],
    *,
    max_prompt_length: int | None,
    max_completion_length: int | None,
    truncation: Truncation,
    bos_token_id: int | None = None,
    end_token_id: int | None = None,
) -> Truncated:
    """A prompt and its completion within their limits.

    Args:
        prompt_ids: of the prompt.
        completion_ids: of the completion, EOS last; cut at its end, so a completion that is cut has no EOS.
        max_prompt_length: in tokens; None for no limit.
        max_completion_length: in tokens, EOS counted; None for no limit.
        truncation: which end of a prompt is kept.
        bos_token_id: stays first where the prompt begins with it.
        end_token_id: stays last where the prompt ends with it (the EOS of an encoder's input).

    Raises:
        InputFault: a limit below 1, or no such truncation.
    """
    kept = truncate_prompt(
        prompt_ids, max_prompt_length, truncation, bos_token_id=bos_token_id, end_token_id=end_token_id
    )
    answer = truncate_completion(completion_ids, max_completion_length)
    return Truncated(kept, answer, len(kept) < len(prompt_ids), len(answer) < len(completion_ids))


def truncate_prompt(
    ids: list[int],
    limit: int | None,
    truncation: Truncation,
    *,
    bos_token_id: int | None = None,
    end_token_id: int | None = None,
) -> list[int]:
    """A prompt's first or last tokens; see :func:`truncate`.

    Raises:
        InputFault: a limit below 1, or no such truncation.
    """
    if truncation not in TRUNCATIONS:
        guess = nearest(truncation, TRUNCATIONS)
        raise InputFault(f"truncation is '{truncation}'{guess} It is keep_end or keep_start.")
    if _fits(ids, limit, "max_prompt_length") or limit is None:
        return ids
    first = ids[:1] if bos_token_id is not None and ids[0] == bos_token_id else []
    last = ids[-1:] if end_token_id is not None and ids[-1] == end_token_id and limit > len(first) else []
    inside = ids[len(first) : len(ids) - len(last)]
    room = limit - len(first) - len(last)
    return first + (inside[:room] if truncation == "keep_start" else inside[len(inside) - room :]) + last


def truncate_completion(ids: list[int], limit: int | None) -> list[int]:
    """A completion's first tokens.

    Raises:
        InputFault: a limit below 1.
    """
    return ids if _fits(ids, limit, "max_completion_length") else ids[:limit]


def _fits(ids: list[int], limit: int | None, name: str) -> bool:
    if limit is not None and limit < 1:
        raise InputFault(f"{name} is {limit}; at least one token has to be left")
    return limit is None or len(ids) <= limit
