"""Splits a micro-batch into pieces of whole examples, none with more tokens than a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from po.training.collate import MISMATCHED, ROW_COLUMNS, text_part
from po.training.layouts import CANDIDATES, COUNTED, Batch, Layout

_TABLES = ("input_ids", "attention_mask", "completion_mask")
_PROMPTS = "prompt_rows"
_TOKEN_VALUES = "reference_token_logps"


@dataclass(frozen=True)
class Example:
    """What an example costs.

    Attributes:
        index: of the example in its micro-batch.
        rows: its rows.
        prompts: tokens of each prompt that it needs, by the row that the prompt is taken from.
        completions: tokens of its completions.
        longest: tokens of its longest completion.
    """

    index: int
    rows: tuple[int, ...]
    prompts: Mapping[int, int]
    completions: int
    longest: int

    @property
    def length(self) -> int:
        """Tokens of its longest row."""
        return max(self.prompts.values()) + self.longest


Piece = Sequence[Example]


def can_be_split(batch: Batch) -> bool:
    """Whether all that a batch holds belongs to single examples: images and foreign completions do not."""
    known = {*_TABLES, _PROMPTS}
    return set(text_part(batch)) <= known and not any(name.startswith(MISMATCHED) for name in batch)


def examples_of(batch: Batch, layout: Layout, *, shared: bool) -> list[Example]:
    """The examples of a batch, those with one prompt side by side, long ones first.

    Args:
        batch: of a decoder-only model, as the collator made it.
        layout: of the method.
        shared: a prompt of several rows is computed once; else every row has its own.
    """
    total, completion = batch["attention_mask"].sum(dim=1), batch["completion_mask"].sum(dim=1)
    prompt_of = torch.arange(len(total), device=total.device)
    if shared and _PROMPTS in batch:
        prompt_of = batch[_PROMPTS]
    facts = torch.stack([layout.owners(batch), prompt_of, total - completion, completion])
    rows: dict[int, list[tuple[int, int, int, int]]] = {}
    for row, (owner, key, prompt, own) in enumerate(zip(*facts.tolist(), strict=True)):
        rows.setdefault(owner, []).append((row, key, prompt, own))
    found = [
        Example(
            index=owner,
            rows=tuple(row for row, *_ in of),
            prompts={key: prompt for _, key, prompt, _ in of},
            completions=sum(own for *_, own in of),
            longest=max(own for *_, own in of),
        )
        for owner, of in rows.items()
    ]
    longest: dict[int, int] = {}
    for example in found:
        key = min(example.prompts)
        longest[key] = max(longest.get(key, 0), example.length)
    return sorted(found, key=lambda e: (-longest[min(e.prompts)], min(e.prompts), e.index))


def tokens_of(piece: Piece) -> int:
    """Tokens that are computed for some examples together."""
    prompts = {key: tokens for example in piece for key, tokens in example.prompts.items()}
    return sum(prompts.values()) + sum(example.completions for example in piece)


def cut(examples: Sequence[Example], budget: int, agreed: Callable[[int], int] = int) -> list[Piece]:
    """Pieces of about the same number of tokens, in the order of the examples.

    Args:
        examples: in the order in which they may stand together.
        budget: most tokens of a piece; an example that has more is a piece of its own.
        agreed: number of pieces that are needed -> number that are made, at most that of the examples.
    """
    needed = _filled(examples, budget)
    count = agreed(len(needed))
    if count == 1:
        return [examples]
    low, high = 1, tokens_of(examples)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(examples, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    pieces = _filled(examples, high)
    while len(pieces) < count:
        place = max(range(len(pieces)), key=lambda i: len(pieces[i]))
        piece = pieces[place]
        pieces[place : place + 1] = [piece[: len(piece) // 2], piece[len(piece) // 2 :]]
    return pieces


def _filled(examples: Sequence[Example], limit: int) -> list[Piece]:
    """Pieces that are filled one after the other, as many examples in each as the limit allows."""
    pieces: list[list[Example]] = []
    prompts: set[int] = set()
    tokens = 0
    for example in examples:
        more = example.completions + sum(n for key, n in example.prompts.items() if key not in prompts)
        if not pieces or tokens + more > limit:
            pieces.append([])
            prompts, tokens = set(), 0
            more = tokens_of([example])
        pieces[-1].append(example)
        prompts |= example.prompts.keys()
        tokens += more
    return list(pieces)


def part_of(batch: Batch, piece: Piece) -> dict[str, Tensor]:
    """The batch of some examples, in the order of the whole one: what the collator would make of them alone.

    Args:
        batch: as the collator made it.
        piece: examples of it.
    """
    device = batch["completion_mask"].device
    indices = sorted(example.index for example in piece)
    rows = sorted(row for example in piece for row in example.rows)
    of_examples, of_rows = torch.tensor(indices, device=device), torch.tensor(rows, device=device)
    length, longest = max(example.length for example in piece), max(example.longest for example in piece)
    width = {**dict.fromkeys(_TABLES, length), _TOKEN_VALUES: longest}
    width[CANDIDATES] = max(len(example.rows) for example in piece)
    found = {}
    for name, value in batch.items():
        taken = value[of_examples if name in (*ROW_COLUMNS, CANDIDATES, COUNTED) else of_rows]
        found[name] = taken[:, : width[name]] if name in width else taken
    if _PROMPTS in batch:
        found[_PROMPTS] = _first_places(found[_PROMPTS])
    return found


def _first_places(keys: Tensor) -> Tensor:
    """For each entry the place of the first one that is equal, (rows,)."""
    return (keys.unsqueeze(1) == keys.unsqueeze(0)).int().argmax(dim=1)
