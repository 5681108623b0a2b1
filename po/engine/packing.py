"""Rows of a padded batch -> one row without padding, in which each prompt stands once.

A prompt is followed by all its completions: [prompt | chosen | rejected | next prompt | ...]. Positions begin
again after the prompt, and no completion sees another, so every token gets the hidden state that it has in a
row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_MULTIPLE = 256  # tokens; on CUDA a row's length is filled up to it, so that kernels are compiled for few


@dataclass(frozen=True)
class Group:
    """A prompt and its completions, side by side in a packed row.

    Attributes:
        start: where the prompt begins.
        prompt: its tokens.
        completions: tokens of each completion.
    """

    start: int
    prompt: int
    completions: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of all."""
        return self.prompt + sum(self.completions)


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch as one row.

    Attributes:
        ids: (1, tokens).
        positions: position of each token in its own text, (1, tokens).
        place: where each token of the padded batch stands, (rows, length); 0 on padding.
        part: 0 in a prompt, else which of its completions a token belongs to, from 1 on, (tokens,).
        group: which prompt a token belongs to, (tokens,); -1 on what fills the row up.
        groups: in the order of the row, short ones first.
    """

    ids: Int[Tensor, "1 tokens"]
    positions: Int[Tensor, "1 tokens"]
    place: Int[Tensor, "rows length"]
    part: Int[Tensor, " tokens"]
    group: Int[Tensor, " tokens"]
    groups: tuple[Group, ...]

    def places(self, rows: Int[Tensor, " some"], columns: Int[Tensor, " some"]) -> Int[Tensor, " places"]:
        """Where tokens of the padded batch stand, in the order of the row, each place once."""
        named = torch.zeros_like(self.part, dtype=torch.bool)
        named[self.place[rows, columns]] = True
        return named.nonzero().squeeze(1)


def pack(
    ids: Int[Tensor, "rows length"],
    attention: Int[Tensor, "rows length"],
    completion: Bool[Tensor, "rows length"],
    prompt_rows: Int[Tensor, " rows"] | None = None,
) -> Packed:
    """Packs a batch.

    Args:
        ids: tokens, padded on the right.
        attention: 1 where a token is.
        completion: True where a token of a completion is.
        prompt_rows: for each row the first one with the same prompt; None where none is shared.

    Raises:
        ValueError: a row is padded elsewhere than on its right, or its prompt is not that of the row that
            ``prompt_rows`` names.
    """
    rows = torch.arange(len(ids), device=ids.device)
    column = torch.arange(ids.shape[1], device=ids.device)
    owners = rows if prompt_rows is None else prompt_rows
    inside, first, lengths = attention > 0, completion.int().argmax(dim=1), attention.sum(dim=1)
    in_prompt = column < first.unsqueeze(1)
    ragged = ((inside != (column < lengths.unsqueeze(1))) | (completion & ~inside)).any(dim=1)
    alien = ((ids != ids[owners]) & in_prompt).any(dim=1)
    facts = torch.stack([owners, first, lengths, ragged, alien])  # one copy to the host for all
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, (owner, prompt, length, *faults) in enumerate(zip(*facts.tolist(), strict=True)):
        _refuse(row, owner, *faults)
        members.setdefault((owner, prompt), []).append((row, length - prompt))
    groups, of_row = _placed(members, len(ids))

    prompt_start, own_start, part, group = torch.tensor(of_row, device=ids.device).T.unsqueeze(-1)
    place = torch.where(in_prompt, prompt_start + column, own_start + column - first.unsqueeze(1))
    place = place.masked_fill(~inside, 0)
    total = groups[-1].start + groups[-1].length
    filled = -(-total // _MULTIPLE) * _MULTIPLE if ids.is_cuda else total

    def packed(values: Tensor, rest: int = 0) -> Tensor:
        row = values.new_full((filled,), rest)
        row[place[inside]] = values.expand_as(place)[inside]
        return row

    return Packed(
        ids=packed(ids).unsqueeze(0),
        positions=packed(column).unsqueeze(0),
        place=place,
        part=packed(part.masked_fill(in_prompt, 0)),
        group=packed(group, -1),
        groups=groups,
    )


def _refuse(row: int, owner: int, ragged: int, alien: int) -> None:
    if ragged:
        raise ValueError(
            f"row {row} of the batch has padding between its tokens or before them, or scores padding; rows "
            "are padded on the right"
        )
    if alien:
        raise ValueError(
            f"prompt_rows says that row {row} has the prompt of row {owner}, but the tokens differ"
        )


def _placed(
    members: dict[tuple[int, int], list[tuple[int, int]]], n_rows: int
) -> tuple[tuple[Group, ...], Sequence[tuple[int, int, int, int]]]:
    """Groups in their order; of each row the start of its prompt and completion, its number and its group."""
    found: list[Group] = []
    start = 0
    of_row = [(0, 0, 0, 0)] * n_rows
    for (_, prompt), rows in sorted(members.items(), key=lambda one: one[0][1] + sum(n for _, n in one[1])):
        own = start + prompt
        for part, (row, length) in enumerate(rows, start=1):
            of_row[row] = (start, own, part, len(found))
            own += length
        found.append(Group(start, prompt, tuple(length for _, length in rows)))
        start = own
    return tuple(found), of_row
