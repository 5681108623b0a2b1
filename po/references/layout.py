"""Where the values of rows stand in a table or a flat list, and which rows are computed together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from po.methods.method import DataForm
from po.rows import Row
from po.training.collate import batch_order, completions_of

Array = np.ndarray[Any, Any]
TABLES = ("logps", "entropy", "mismatched_logps")
"""Kinds with one value per completion; ``token_logps`` has one per token."""


@dataclass(frozen=True)
class Layout:
    """The completions of rows.

    Attributes:
        lengths: tokens of each completion of each row, as ``po.training.collate.completions_of`` has them.
        counts: completions of each row, (rows,).
        starts: where each row's tokens begin among those of all, (rows,).
    """

    lengths: Sequence[Sequence[int]]
    counts: Array
    starts: Array

    @classmethod
    def of(cls, rows: Sequence[Row], form: DataForm) -> "Layout":
        """The layout of rows, at least one."""
        lengths = [[len(ids) for ids in completions_of(row, form)] for row in rows]
        totals = np.array([sum(each) for each in lengths])
        return cls(lengths, np.array([len(each) for each in lengths]), np.cumsum(totals) - totals)

    def shape(self, kind: str) -> tuple[int, ...]:
        """(rows, most completions) of a table; (tokens,) of all rows otherwise."""
        if kind in TABLES:
            return len(self.counts), int(self.counts.max())
        return (int(self.starts[-1]) + sum(self.lengths[-1]),)

    def empty(self, kinds: Sequence[str]) -> dict[str, Array]:
        """NaN in place of all values, float32."""
        return {kind: np.full(self.shape(kind), np.nan, dtype=np.float32) for kind in kinds}

    def place(self, found: Mapping[str, Array], indices: Sequence[int], values: Mapping[str, Array]) -> None:
        """Puts the values of some rows where they belong.

        Args:
            found: of all rows, by kind; changed.
            indices: of the rows.
            values: by kind, one after the other: row by row, in a row by completion, then by token.
        """
        for kind, whole in found.items():
            if kind in TABLES:
                counts = self.counts[indices]
                columns = np.concatenate([np.arange(count) for count in counts])
                whole[np.repeat(indices, counts), columns] = values[kind]
                continue
            done = 0
            for i in indices:
                size = sum(self.lengths[i])
                whole[self.starts[i] : self.starts[i] + size] = values[kind][done : done + size]
                done += size

    def tokens(self, whole: Array, index: int) -> list[Array]:
        """The values of a row's tokens, for each completion a view of ``whole``."""
        ends = np.cumsum(self.lengths[index]) + self.starts[index]
        return [whole[end - length : end] for end, length in zip(ends, self.lengths[index], strict=True)]


def row_by_row(
    values: Mapping[str, Array], completions: list[list[list[int]]], form: DataForm
) -> dict[str, Array]:
    """A batch's values in the order of ``Layout.place``.

    Args:
        values: by kind, as a batch has them: (completions,), or (completions, most tokens).
        completions: of each row of the batch.
        form: decides the batch's order.
    """
    places = batch_order(completions, form)
    order = sorted(range(len(places)), key=places.__getitem__)
    found = {kind: table[order] for kind, table in values.items() if kind in TABLES}
    if "token_logps" in values:
        ends = [(at, len(completions[places[at][0]][places[at][1]])) for at in order]
        found["token_logps"] = np.concatenate([values["token_logps"][at, :end] for at, end in ends])
    return found


def batches(rows: Sequence[Row], layout: Layout, budget: int, *, shared: bool) -> Iterator[list[int]]:
    """Indices of rows that are computed together, a row at least.

    The longest come first, so that a lack of memory shows at once. Rows of one prompt stand side by side:
    where the engine shares prompts, a batch pays for it once.

    Args:
        rows: token ids.
        layout: of the rows.
        budget: most tokens of a batch: its completions and each of its prompts once; where prompts are not
            shared, those of its padded completions with their prompts.
        shared: whether they are; never for rows with images.
    """
    # equal hashes of two prompts would cost padding alone
    prompts = [hash((*row["prompt_ids"], *map(str, row.get("images") or ()))) for row in rows]
    longest: dict[int, int] = {}
    for row, prompt, lengths in zip(rows, prompts, layout.lengths, strict=True):
        longest[prompt] = max(longest.get(prompt, 0), len(row["prompt_ids"]) + max(lengths))
    rank = {prompt: (-length, at) for at, (prompt, length) in enumerate(longest.items())}
    batch: list[int] = []
    size = 0
    for i in sorted(range(len(rows)), key=lambda i: rank[prompts[i]]):
        prompt, own = len(rows[i]["prompt_ids"]), sum(layout.lengths[i])
        if not shared or rows[i].get("images"):
            own, prompt = len(layout.lengths[i]) * (prompt + max(layout.lengths[i])), 0
        more = own + (0 if batch and prompts[batch[-1]] == prompts[i] else prompt)
        if batch and size + more > budget:
            yield batch
            batch, size, more = [], 0, own + prompt
        batch.append(i)
        size += more
    yield batch
