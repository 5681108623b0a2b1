"""Where the completions of an example stand among the rows of a batch, by the form of the data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]
CANDIDATES = "candidate_mask"
"""Which places of a table (lists, longest list) have a candidate; batches of lists carry it."""
COUNTED = "counted"
"""Which examples count, (examples,); only a batch that was filled up with repeats carries it."""


class Layout(ABC):
    """Base of the four layouts."""

    sides: ClassVar[tuple[str, ...]]

    def examples(self, batch: Batch) -> int:
        """How many losses the batch has: its pairs, lists or completions."""
        return len(batch["completion_mask"])

    def owners(self, batch: Batch) -> Tensor:
        """Which example each row of the batch belongs to, (rows,)."""
        return torch.arange(len(batch["completion_mask"]), device=batch["completion_mask"].device)

    @abstractmethod
    def split(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        """One value per row of the batch -> values by side."""

    @abstractmethod
    def compared(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The values of wanted and of unwanted completions, for the log."""

    def join(self, prefix: str, suffix: str, side: str) -> str:
        """Name of a loss's input."""
        return "_".join(part for part in (prefix, side, suffix) if part)


class PairedLayout(Layout):
    """The chosen completions first, the rejected ones below them."""

    sides = ("chosen", "rejected")

    def examples(self, batch: Batch) -> int:
        """The number of pairs."""
        return len(batch["completion_mask"]) // 2

    def owners(self, batch: Batch) -> Tensor:
        """(rows,)."""
        return super().owners(batch) % self.examples(batch)

    def split(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Each (pairs,)."""
        return dict(zip(self.sides, values.chunk(2), strict=True))

    def compared(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each (pairs,)."""
        chosen, rejected = values.chunk(2)
        return chosen, rejected


class UnpairedLayout(Layout):
    """One completion a row, with a label."""

    sides = ("",)

    def split(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        """(completions,)."""
        return {"": values}

    def compared(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(desirable completions,), (undesirable completions,)."""
        return values[batch["desirable"]], values[~batch["desirable"]]


class RankedLayout(Layout):
    """The candidates of the first prompt, best first, then those of the next."""

    sides = ("ranked",)

    def examples(self, batch: Batch) -> int:
        """The number of lists."""
        return len(batch[CANDIDATES])

    def owners(self, batch: Batch) -> Tensor:
        """(rows,)."""
        return batch[CANDIDATES].nonzero()[:, 0]

    def split(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        """(lists, longest list), 0 where a list has ended."""
        mask = batch[CANDIDATES]
        return {"ranked": values.new_zeros(mask.shape).masked_scatter(mask, values)}

    def compared(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The best and the worst of each list."""
        table, last = self.split(values, batch)["ranked"], batch[CANDIDATES].sum(dim=1) - 1
        return table[:, 0], table.gather(1, last.unsqueeze(1)).squeeze(1)


class SupervisedLayout(Layout):
    """One completion a row, to be imitated."""

    sides = ("chosen",)

    def split(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        """(completions,)."""
        return {"chosen": values}

    def compared(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(completions,), and nothing."""
        return values, torch.empty(0, device=values.device)


LAYOUTS: Mapping[str, Layout] = {
    "paired": PairedLayout(),
    "unpaired": UnpairedLayout(),
    "ranked": RankedLayout(),
    "supervised": SupervisedLayout(),
}
"""By ``Method.data``."""
