"""Scores of segments by content: what was scored once with a signature is not scored again in any run.

Each process writes shards of its own: ``<cache>/<digest of signature>/<host>-<pid>-<token>-<n>.parquet``, the
newest replaced atomically as it grows. All shards count, so any number of processes may write at a time.

A grid of thousands of cells leaves as many shards. So who comes to read merges many small ones into one, and
of all rows only the keys are read; a score is read when it is asked for.
"""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.base import Example, SegmentScore
from eval.scoring.segment_shards import (
    COLUMNS,
    Shard,
    merge_small,
    oldest_first,
    open_shard,
    schema_of_shards,
    write_shard,
)

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD_ROWS = 4096
"""Rows after which a process goes on in a new shard: what is written again at each flush is bounded."""
_TRIES = 4
"""Readings of a folder in which shards vanish; whoever merges removes them, and rarely."""


def segment_key(signature: str, example: Example, *, with_prompt: bool = False) -> bytes:
    """SHA-256 of signature, source, hypothesis and references, and of the prompt where a metric reads it."""
    content: list[Any] = [signature, example.source, example.hypothesis, list(example.references)]
    if with_prompt:
        content.append(example.prompt)
    return hashlib.sha256(json.dumps(content).encode("ascii")).digest()


class SegmentCache:
    """Segment scores on disk.

    Args:
        folder: of the cache; made at the first write.
        read: whether scores of earlier runs count; without them all is scored again, once.

    Attributes:
        asked: scores that were looked for.
        found: those of them that an earlier run had left.
        filled: of a signature: what was scored for all systems together by this process.
        seconds: of a signature: what one of these segments took.
    """

    def __init__(self, folder: Path, *, read: bool = True) -> None:
        self.folder = folder
        self._read = read
        self._shard = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._known: dict[str, _Known] = {}
        self._own: dict[str, list[dict[bytes, SegmentScore]]] = {}
        self.asked = self.found = 0
        self.filled: dict[str, frozenset[bytes]] = {}
        self.seconds: dict[str, float] = {}

    def known(self, signature: str) -> Mapping[bytes, SegmentScore]:
        """All scores with a signature, by key; the keys are read from disk at the first call."""
        return self._known_of(signature)

    def _known_of(self, signature: str) -> "_Known":
        if signature not in self._known:
            folder = self._signature_folder(signature) if self._read else None
            if folder is not None and folder.is_dir():
                merge_small(folder)
            self._known[signature] = _Known(folder)
        return self._known[signature]

    def add(self, signature: str, scores: Mapping[bytes, SegmentScore]) -> None:
        """Keep scores, on disk before this returns."""
        if not scores:
            return
        if signature not in self._known:
            self._known[signature] = _Known(None)
        self._known[signature].own.update(scores)
        shards = self._own.setdefault(signature, [{}])
        if len(shards[-1]) >= _SHARD_ROWS:
            shards.append({})
        shards[-1].update(scores)
        folder = self._signature_folder(signature)
        folder.mkdir(parents=True, exist_ok=True)
        write_shard(folder / f"{self._shard}-{len(shards)}.parquet", _table_of(shards[-1]))

    def lookup(self, signature: str, keys: Iterable[bytes]) -> dict[bytes, SegmentScore]:
        """Those of some scores that are there; counted."""
        wanted = list(keys)
        self.asked += len(wanted)
        self.found += self.count_earlier(signature, wanted)
        return self._known_of(signature).some(wanted)

    def count_earlier(self, signature: str, keys: Iterable[bytes]) -> int:
        """How many of some scores were there before all systems were scored together."""
        wanted, filled = list(keys), self.filled.get(signature, frozenset())
        stored = self._known_of(signature).some(wanted)
        return sum(key in stored and key not in filled for key in wanted)

    def summary(self) -> str:
        """Size on disk and share of the lookups that were answered, in one line."""
        bytes_ = sum(about.st_size for about in oldest_first(self.folder.rglob("*.parquet")).values())
        rate = f"{self.found} of {self.asked} scores were there" if self.asked else "nothing was looked up"
        return f"{self.folder}: {bytes_ / 1e6:.1f} MB; {rate}"

    def _signature_folder(self, signature: str) -> Path:
        return self.folder / hashlib.sha256(signature.encode()).hexdigest()[:16]


class _Known(Mapping[bytes, SegmentScore]):
    """Scores with one signature: those that are in memory, and by their keys those in a folder.

    Args:
        folder: of the shards; None where none are to be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self.own: dict[bytes, SegmentScore] = {}
        self._folder = folder
        self._list_shards()

    def some(self, keys: Sequence[bytes]) -> dict[bytes, SegmentScore]:
        """Those of the keys that are there, with their scores."""
        asked = frozenset(keys) - self.own.keys()
        for _ in range(_TRIES):
            try:
                self.own |= self._from_disk(asked)
                break
            except FileNotFoundError:  # somebody has merged it: its rows are in another shard
                self._list_shards()
        return {key: self.own[key] for key in keys if key in self.own}

    def __contains__(self, key: object) -> bool:
        return key in self.own or (isinstance(key, bytes) and bool(self.some([key])))

    def __getitem__(self, key: bytes) -> SegmentScore:
        return self.some([key])[key]

    def __iter__(self) -> Iterator[bytes]:
        stored = (key for shard in self._shards for key in shard.keys())
        return iter(dict.fromkeys([*self.own, *stored]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _list_shards(self) -> None:
        found: list[Shard | None] = []
        for _ in range(_TRIES):
            listed = oldest_first(self._folder.glob("*.parquet")) if self._folder else {}
            found = [open_shard(path) for path in listed]
            if None not in found:
                break
        self._shards = [shard for shard in found if shard is not None]

    def _from_disk(self, keys: Set[bytes]) -> dict[bytes, SegmentScore]:
        starts = np.unique(np.frombuffer(b"".join(key[:8] for key in keys), np.uint64))
        found = {}
        for shard in self._shards:  # the oldest first: what was scored again wins
            for key, *values in shard.rows(starts):
                if key in keys:
                    found[key] = _segment_score(*values)
        return found


def _table_of(scores: Mapping[bytes, SegmentScore]) -> "pa.Table":
    import pyarrow as pa

    values = scores.values()
    details = [details_text(score) for score in values]
    columns = (list(scores), [score.score for score in values], _statistics(values), details)
    return pa.table(dict(zip(COLUMNS, columns, strict=True)), schema=schema_of_shards())


def details_text(score: SegmentScore) -> str | None:
    """What a metric says beside the score, as JSON."""
    return None if score.details is None else json.dumps(dict(score.details), ensure_ascii=False)


def _statistics(scores: Iterable[SegmentScore]) -> list[list[float] | None]:
    return [None if score.stats is None else list(score.stats) for score in scores]


def _segment_score(score: Any, stats: Any, details: Any) -> SegmentScore:
    kept = None if details is None else json.loads(details)
    return SegmentScore(float(score), None if stats is None else tuple(stats), kept)
