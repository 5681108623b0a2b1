"""Scores of segments by content: what was scored once with a signature is not scored again in any run.

Each process writes one shard for each signature and no other: ``<cache>/<digest of
signature>/<host>-<pid>-<token>.parquet``, replaced atomically as it grows. All shards are read and merged, so
any number of processes may write at a time.
"""

import hashlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.metrics.base import Example, SegmentScore
from eval.records import replace_with

logger = logging.getLogger(__name__)

_COLUMNS = ("key", "score", "stats")


def segment_key(signature: str, example: Example) -> bytes:
    """SHA-256 of signature, source, hypothesis and references."""
    content = [signature, example.source, example.hypothesis, list(example.references)]
    return hashlib.sha256(json.dumps(content).encode("ascii")).digest()


class SegmentCache:
    """Segment scores on disk.

    Args:
        folder: of the cache; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shard = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.parquet"
        self._known: dict[str, dict[bytes, SegmentScore]] = {}
        self._own: dict[str, dict[bytes, SegmentScore]] = {}

    def known(self, signature: str) -> Mapping[bytes, SegmentScore]:
        """All scores with a signature, by key; read from disk at the first call."""
        if signature not in self._known:
            found: dict[bytes, SegmentScore] = {}
            for path in sorted(self._signature_folder(signature).glob("*.parquet")):
                found |= _read_shard(path)
            self._known[signature] = found
        return self._known[signature]

    def add(self, signature: str, scores: Mapping[bytes, SegmentScore]) -> None:
        """Keep scores, on disk before this returns."""
        if not scores:
            return
        self._known.setdefault(signature, {}).update(scores)
        own = self._own.setdefault(signature, {})
        own.update(scores)
        folder = self._signature_folder(signature)
        folder.mkdir(parents=True, exist_ok=True)
        _write_shard(folder / self._shard, own)

    def _signature_folder(self, signature: str) -> Path:
        return self._folder / hashlib.sha256(signature.encode()).hexdigest()[:16]


def _write_shard(path: Path, scores: Mapping[bytes, SegmentScore]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "key": pa.array(list(scores), pa.binary(32)),
            "score": pa.array([s.score for s in scores.values()], pa.float64()),
            "stats": pa.array(_statistics(scores.values()), pa.list_(pa.float64())),
        }
    )
    replace_with(path, lambda temporary: pq.write_table(table, temporary))


def _statistics(scores: Iterable[SegmentScore]) -> list[list[float] | None]:
    return [None if score.stats is None else list(score.stats) for score in scores]


def _read_shard(path: Path) -> dict[bytes, SegmentScore]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns: dict[str, list[Any]] = pq.read_table(path, columns=list(_COLUMNS)).to_pydict()
        rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
        return {key: SegmentScore(float(score), None if s is None else tuple(s)) for key, score, s in rows}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        logger.warning("%s: this shard of the cache cannot be read and is passed over (%s)", path, reason)
        return {}
