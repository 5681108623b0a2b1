"""Tasks whose data are generated: ``GENERATORS[name].generate(seed, sizes)`` makes the splits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from experiments.generators import numbers

Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A source of data without limit.

    Attributes:
        name: what a manifest calls it.
        version: changes whenever the same seed gives other rows; part of the content hash of what it made.
        generate: takes a seed and the size of each split; returns the rows of each split (``id``, ``source``,
            ``reference``, ``category``).
    """

    name: str
    version: str
    generate: Callable[[int, Mapping[str, int]], dict[str, Rows]]


_ENTRIES = (Generator(name="numbers", version=numbers.VERSION, generate=numbers.generate),)
GENERATORS: Mapping[str, Generator] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
