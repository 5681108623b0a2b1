"""Reproducible drawing: random choices, and splits that share no sentence whatever their sizes are."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

USUAL_SPLITS = ("sft", "train", "dev", "test")
PATIENCE = 20_000


class Draw:
    """Random choices that stay the same on every platform and Python version.

    They are all made of ``random.Random.random``, the only method whose sequence Python promises to keep.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each with the same probability."""
        return items[self.between(0, len(items) - 1)]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability


MakePair = Callable[[Draw, str], tuple[str, str]]


def draw_splits(
    make_pair: MakePair, categories: Sequence[str], seed: int, sizes: Mapping[str, int]
) -> dict[str, list[dict[str, str]]]:
    """Fill each split with different sentence pairs, the categories in turn.

    A source sentence belongs to one split, by a hash of its text and the seed. So two splits can have no
    sentence in common, and a split is the same for every size of the others; a larger split starts with the
    rows of the smaller one. The splits sft, train, dev and test are also the same whether or not others are
    asked for, so that each can be drawn alone.

    Args:
        make_pair: draws the source and the reference of one sentence of a category.
        categories: names that ``make_pair`` takes.
        seed: names the whole collection.
        sizes: rows wanted in each split; any split names.

    Returns:
        For each split its rows: ``id`` ("<split>-<i>"), ``source``, ``reference``, ``category``.

    Raises:
        ValueError: a size is no whole number >= 0, or there are too few different sentences to fill it.
    """
    for split, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"size of split {split!r} is {size!r}; give a whole number, 0 or more")
    extra = sorted(set(sizes) - set(USUAL_SPLITS))
    return {split: _fill(make_pair, categories, seed, split, size, extra) for split, size in sizes.items()}


def _fill(
    make_pair: MakePair, categories: Sequence[str], seed: int, split: str, size: int, extra: Sequence[str]
) -> list[dict[str, str]]:
    draw = Draw(f"{seed}/{split}")
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    failures = 0
    while len(rows) < size:
        category = categories[len(rows) % len(categories)]
        source, reference = make_pair(draw, category)
        if source in seen or _owner(source, seed, extra) != split:
            failures += 1
            if failures == PATIENCE:
                raise ValueError(
                    f"split {split!r} cannot have {size} rows: after {len(rows)} rows, {PATIENCE} drawn "
                    f"sentences of category {category!r} were repeated or belong to other splits; "
                    f"ask for {len(rows)} rows or fewer"
                )
            continue
        failures = 0
        seen.add(source)
        rows.append(
            {"id": f"{split}-{len(rows)}", "source": source, "reference": reference, "category": category}
        )
    return rows


def _owner(source: str, seed: int, extra: Sequence[str]) -> str | None:
    """The split that a sentence belongs to; None: one of the splits that were not asked for."""
    digest = hashlib.sha256(f"{seed}\n{source}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % (len(USUAL_SPLITS) + 1)
    if bucket < len(USUAL_SPLITS):
        return USUAL_SPLITS[bucket]
    # All other names share the last bucket, so that asking for one leaves the usual splits as they are.
    return extra[int.from_bytes(digest[8:16], "big") % len(extra)] if extra else None
