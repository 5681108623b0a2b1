"""The shards of the segment cache on disk: Parquet files, and how many small ones become one.

Merging needs no agreement with writers and readers: what is merged is written first and removed then, and
only if it is still what was read.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from eval.records import replace_with

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

KeyStarts = np.ndarray[tuple[int], np.dtype[np.uint64]]
Rows = np.ndarray[tuple[int], np.dtype[np.int64]]
COLUMNS = ("key", "score", "stats", "details")
_MERGED = "-merged"
_GROUP_ROWS = 2048
"""What is read of a merged shard for the sake of one row."""
_RUN = 32
"""So many shards that lie side by side in age are merged ..."""
_SMALL_BYTES = (2**20, 2**25)
"""... where each is smaller than this: first the smallest, then what came of those."""
_MOST_BYTES = 2**26
"""What is merged at a time; several times as much in memory."""
_MOST_MERGES = 16
"""In one go: writers that are at work leave new small shards."""


class Shard:
    """A shard whose keys have been read; :func:`open_shard` makes it.

    Args:
        path: of the file.
        table: what has been read: all of it, or its keys.
    """

    def __init__(self, path: Path, table: "pa.Table") -> None:
        self._path, self._table = path, table
        starts = key_starts(table)
        # sorted, but for shards that earlier versions have written
        self._order = None if bool((starts[:-1] <= starts[1:]).all()) else np.argsort(starts)
        self._starts = starts if self._order is None else starts[self._order]
        self._ends: Rows | None = None
        self._groups: dict[int, pa.Table] = {}

    def keys(self) -> list[bytes]:
        """Of all rows."""
        keys: list[bytes] = self._table["key"].to_pylist()
        return keys

    def rows(self, starts: KeyStarts) -> Iterator[tuple[Any, ...]]:
        """Key, score, statistics and details of the rows whose keys begin so.

        Raises:
            FileNotFoundError: the shard is not there any more.
        """
        first, end = (np.searchsorted(self._starts, starts, side) for side in ("left", "right"))
        there = first < end  # seldom
        rows = np.array([n for a, b in zip(first[there], end[there], strict=True) for n in range(a, b)], int)
        if self._order is not None:
            rows = self._order[rows]
        for table, its_rows in self._parts(rows) if len(rows) else ():
            columns = table.take(its_rows).to_pydict()
            yield from zip(*(columns[name] for name in COLUMNS), strict=True)

    def _parts(self, rows: Rows) -> Iterator[tuple["pa.Table", Rows]]:
        """Tables with these rows, and where they are there; of a merged shard only some groups of rows."""
        if self._table.num_columns == len(COLUMNS):
            yield self._table, rows
            return
        if self._ends is None:
            self._ends = _group_ends(self._path)
        groups = np.searchsorted(self._ends, rows, "right")
        for group in np.unique(groups).tolist():
            if group not in self._groups:
                found = _read(self._path, COLUMNS, group)
                if found is None:
                    raise FileNotFoundError(self._path)
                self._groups[group] = found
            start = self._ends[group - 1] if group else 0
            if len(self._groups[group]):
                yield self._groups[group], rows[groups == group] - start


def open_shard(path: Path) -> Shard | None:
    """A shard, without rows if it is broken; None if it is not there any more."""
    # nobody replaces a merged shard, so its rows can be read later
    table = _read(path, ("key",) if path.stem.endswith(_MERGED) else COLUMNS)
    return None if table is None else Shard(path, table)


def schema_of_shards() -> "pa.Schema":
    """What the columns of a shard hold: key, score, statistics and, as JSON, details."""
    import pyarrow as pa

    types = (pa.binary(32), pa.float64(), pa.list_(pa.float64()), pa.string())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def oldest_first(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """What was scored again stands in a newer file, and wins."""
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # somebody has cleaned up
            found[path] = path.stat()
    return dict(sorted(found.items(), key=lambda item: (item[1].st_mtime_ns, item[0].name)))


def write_shard(path: Path, table: "pa.Table", age_ns: int | None = None) -> None:
    """Replaces a shard; its rows are put in the order of :func:`key_starts`.

    Args:
        path: of the shard.
        table: with the columns of a shard.
        age_ns: Unix time of its youngest row in nanoseconds; now, unless given.
    """
    import pyarrow.parquet as pq

    ordered = table.take(np.argsort(key_starts(table), kind="stable"))

    def write(temporary: Path) -> None:
        pq.write_table(ordered, temporary, _GROUP_ROWS, use_dictionary=["details"])  # no key comes twice
        if age_ns is not None:
            os.utime(temporary, ns=(age_ns, age_ns))

    replace_with(path, write)


def key_starts(table: "pa.Table") -> KeyStarts:
    """The first eight bytes of each key as a number, shape [rows]: enough to find it by."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint64, 4 * (chunk.offset + len(chunk)))[4 * chunk.offset :: 4]
        for chunk in table["key"].chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def merge_small(folder: Path) -> None:
    """Makes one shard of many small ones; safe beside writers, readers and others who merge."""
    try:
        if _small_run(folder):
            with FileLock(folder / "merge.lock", timeout=0):  # one at a time, only to spare the work
                for _ in range(_MOST_MERGES):
                    run = _small_run(folder)
                    if not run or not _merge(folder, run):
                        break
    except Timeout:
        logger.debug("%s: another process merges the shards of the cache", folder)
    except (OSError, NotImplementedError) as fault:  # the latter where the file system has no locks
        logger.warning("%s: its shards cannot be merged, so reading them takes long (%s)", folder, fault)


def _small_run(folder: Path) -> dict[Path, os.stat_result]:
    """Small shards that lie side by side in age, so that one of the same age can stand for them."""
    listed = oldest_first(folder.glob("*.parquet"))
    for limit in _SMALL_BYTES:
        run: dict[Path, os.stat_result] = {}
        room = _MOST_BYTES
        for path, about in listed.items():
            if about.st_size >= limit or about.st_size > room:
                if len(run) >= _RUN:
                    return run
                run, room = {}, _MOST_BYTES
            if about.st_size < limit:
                run[path] = about
                room -= about.st_size
        if len(run) >= _RUN:
            return run
    return {}


def _merge(folder: Path, run: Mapping[Path, os.stat_result]) -> bool:
    """Merges shards; whether there are fewer now."""
    import pyarrow as pa

    tables = {path: table for path in run if (table := _read(path, COLUMNS)) is not None and len(table)}
    if len(tables) < 2:
        return False
    table = pa.concat_tables(tables.values())
    rows = {key: row for row, key in enumerate(table["key"].to_pylist())}
    if len(rows) < len(table):
        table = table.take(sorted(rows.values()))  # of each key the youngest
    token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    age_ns = max(about.st_mtime_ns for about in run.values())
    write_shard(folder / f"{token}{_MERGED}.parquet", table, age_ns)
    for number, path in enumerate(tables):
        suffix = _MERGED if path.stem.endswith(_MERGED) else ""
        _remove_unchanged(path, run[path], folder / f"{token}-{number}{suffix}.parquet")
    return True


def _remove_unchanged(path: Path, seen: os.stat_result, aside: Path) -> None:
    """Removes a shard as it was seen; what its writer has replaced it with meanwhile stays, as a shard."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        now = aside.stat()
        if (now.st_ino, now.st_size, now.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns):
            aside.unlink()


def _group_ends(path: Path) -> Rows:
    """The rows at which the groups of a shard end, shape [groups]."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    return np.cumsum(counts)


def _read(path: Path, columns: Sequence[str], group: int | None = None) -> "pa.Table | None":
    """Columns of a shard or of a group of its rows; no rows if it is broken, None if it is gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([schema_of_shards().field(name) for name in columns])
    try:
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups) if group is None else [group]
            table = file.read_row_groups(groups, columns, use_threads=False)
        if "details" in columns and "details" not in table.column_names:
            table = table.append_column("details", pa.nulls(len(table), pa.string()))  # of the first version
        return table.select(columns).cast(schema)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        logger.warning("%s: this shard of the cache cannot be read and is passed over (%s)", path, reason)
        return schema.empty_table()
