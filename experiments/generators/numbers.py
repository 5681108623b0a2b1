"""English to German with numbers in letters: a translation task with exact references, as large as wanted.

Numbers, dates, clock times, prices and counted things stand in carrier sentences that ask for what makes
German hard: compounds, three genders and cases, plurals, adjective endings, inversion, verbs at the end,
separable prefixes.
"""

import string
from collections.abc import Mapping

from experiments.generators.carriers import CARRIERS
from experiments.generators.drawing import Draw, draw_splits
from experiments.generators.phrases import Phrase
from experiments.generators.slots import SLOTS

# Part of the content hash of what is made from these sentences: raise it whenever a sentence changes.
VERSION = "1"
CATEGORIES = tuple(CARRIERS)


def generate(seed: int, sizes: Mapping[str, int]) -> dict[str, list[dict[str, str]]]:
    """Draw splits of the numbers task.

    Args:
        seed: names the collection; the same seed gives the same rows everywhere.
        sizes: rows wanted in each split, for example ``{"sft": 4000, "dev": 300, "test": 500}``.

    Returns:
        For each split its rows: ``id`` ("<split>-<i>"), ``source`` (English), ``reference`` (German) and
        ``category`` (one of ``CATEGORIES``, in turn). No source occurs twice, and no split depends on the
        size of another.

    Raises:
        ValueError: a size is no whole number >= 0, or larger than the number of different sentences.
    """
    return draw_splits(_draw_pair, CATEGORIES, seed, sizes)


def _draw_pair(draw: Draw, category: str) -> tuple[str, str]:
    english, german = draw.pick(CARRIERS[category])
    phrases: dict[str, Phrase] = {}
    for slot in slots_of(english):
        kind = slot.rstrip("0123456789")
        phrase = SLOTS[kind](draw)
        # Nothing stands twice in a sentence: nobody calls himself, and no lamp costs more than itself.
        while phrase in phrases.values():
            phrase = SLOTS[kind](draw)
        phrases[slot] = phrase
    return fill(english, phrases), fill(german, phrases)


def slots_of(carrier: str) -> list[str]:
    """Names of the slots of a carrier sentence, each once, in the order in which they first stand there."""
    fields = (field.split(".")[0] for _, field, _, _ in string.Formatter().parse(carrier) if field)
    return list(dict.fromkeys(fields))


def fill(carrier: str, phrases: Mapping[str, Phrase]) -> str:
    """The carrier sentence with a phrase in each slot and a capital at its start."""
    words = carrier.format_map(phrases)
    return words[0].upper() + words[1:]
