"""Large grids: what many cells share is made once, and what they leave does not pile up."""

import functools
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from manifests import loaded

from eval.metrics import SegmentScore
from eval.scoring import segment_shards
from eval.scoring.segment_cache import SegmentCache
from experiments import graph, grid, unit_identity, units
from po.methods import Method, resolve

N_WRITERS = 200
MANY = {"from": "sft", "grid": {"beta": [0.1 * number for number in range(1, 21)]}}


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Counter[str]:
    """How often a function is called from now on."""
    calls: Counter[str] = Counter()
    kept = getattr(owner, name)

    def counting(*given: object, **named: object) -> object:
        calls[name] += 1
        return kept(*given, **named)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_a_model_is_looked_at_once_and_not_for_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = counted(monkeypatch, units, "model_document")
    contents = counted(monkeypatch, unit_identity.Contents, "model")
    plan = loaded(tmp_path, methods__dpo=MANY)
    assert len(plan.grid.cells) == 2 + 20 * 2
    assert (documents.total(), contents.total()) == (1, 1)


def test_a_method_that_is_put_together_is_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str) -> Method:
        calls[name] += 1
        return resolve(name)

    monkeypatch.setattr(grid, "method_named", functools.cache(counting))
    plan = loaded(tmp_path, methods__mixed={**MANY, "method": "wpo(dpo)"})
    assert len(plan.grid.cells) == 2 + 2 + 20 * 2
    assert calls["wpo(dpo)"] == 1


def test_every_job_stands_once_in_the_graph_and_after_what_it_needs(tmp_path: Path) -> None:
    plan = loaded(tmp_path, methods__dpo=MANY)
    seen: set[tuple[str, str]] = set()
    for key, job in plan.graph.jobs.items():
        assert key == job.key
        assert all(needed.key in seen for needed in job.needs)
        assert all(needed is plan.graph.jobs[needed.key] for needed in job.needs)
        seen.add(key)
    stages = Counter(job.stage for job in plan.graph.jobs.values())
    cells = len(plan.grid.cells)
    expected = {"train": cells, "generate": cells, "score": cells, "prepare": 2, "pairs": 2, "reference": 2}
    assert stages == expected


def test_the_jobs_of_a_parent_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch, graph.Graph, "_limits")
    plan = loaded(tmp_path, methods__dpo=MANY)
    assert made.total() == len(plan.graph.jobs) + 1  # and the report


def test_a_folder_of_cells_has_one_entry_for_each(tmp_path: Path) -> None:
    plan = loaded(tmp_path, methods__dpo=MANY)
    parents = Counter(job.folder.parent.name for job in plan.graph.jobs.values() if job.stage == "train")
    assert parents == {"cells": len(plan.grid.cells)}
    for job in plan.graph.jobs.values():
        job.write_command_files()
    entries = Counter(path.parent for path in plan.root.rglob("*"))
    assert max(entries.values()) == len(plan.grid.cells)


# -- the cache of segment scores


def key(writer: int, segment: int) -> bytes:
    return bytes([writer, segment]) * 16


def score(writer: int, segment: int) -> SegmentScore:
    return SegmentScore(float(writer), (float(segment), 0.5), {"of": writer})


def fill(folder: Path, writers: int) -> int:
    """What so many processes leave, one after another; the most shards that there were at a time."""
    most = 0
    for writer in range(writers):
        cache = SegmentCache(folder)
        assert cache.lookup("sig", [key(writer, 0), key(writer, 1)]) == {}
        cache.add("sig", {key(writer, segment): score(writer, segment) for segment in range(3)})
        most = max(most, len(list(folder.rglob("*.parquet"))))
    return most


def test_many_processes_leave_few_shards_and_lose_nothing(tmp_path: Path) -> None:
    assert fill(tmp_path, N_WRITERS) <= segment_shards._RUN
    known = SegmentCache(tmp_path).known("sig")
    expected = {key(w, s): score(w, s) for w in range(N_WRITERS) for s in range(3)}
    assert len(known) == len(expected)
    assert dict(known) == expected
    assert SegmentCache(tmp_path).lookup("sig", [key(3, 1), b"?" * 32]) == {key(3, 1): score(3, 1)}
    assert key(7, 2) in SegmentCache(tmp_path).known("sig")
    assert bytes(31) + b"x" not in SegmentCache(tmp_path).known("sig")


def test_what_was_scored_again_wins_also_when_it_is_merged(tmp_path: Path) -> None:
    SegmentCache(tmp_path).add("sig", {key(1, 1): SegmentScore(0.0)})
    time.sleep(0.01)
    SegmentCache(tmp_path, read=False).add("sig", {key(1, 1): SegmentScore(1.0)})
    for writer in range(2, segment_shards._RUN + 2):
        SegmentCache(tmp_path, read=False).add("sig", {key(writer, 0): score(writer, 0)})
    assert SegmentCache(tmp_path).known("sig")[key(1, 1)] == SegmentScore(1.0)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_merged_shard_is_no_younger_than_its_rows(tmp_path: Path) -> None:
    for writer in range(segment_shards._RUN):
        SegmentCache(tmp_path, read=False).add("sig", {key(writer, 0): score(writer, 0)})
    youngest = max(path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet"))
    SegmentCache(tmp_path).known("sig")
    (merged,) = tmp_path.rglob("*.parquet")
    assert merged.stat().st_mtime_ns == youngest


def test_a_shard_that_has_grown_since_it_was_merged_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writer in range(segment_shards._RUN - 1):
        SegmentCache(tmp_path, read=False).add("sig", {key(writer, 0): score(writer, 0)})
    late = SegmentCache(tmp_path, read=False)
    late.add("sig", {key(99, 0): score(99, 0)})
    kept = segment_shards.write_shard

    def written_meanwhile(path: Path, table: object, age_ns: int | None = None) -> None:
        kept(path, table, age_ns)
        if age_ns is not None:
            monkeypatch.undo()
            late.add("sig", {key(99, 1): score(99, 1)})

    monkeypatch.setattr(segment_shards, "write_shard", written_meanwhile)
    SegmentCache(tmp_path).known("sig")
    known = SegmentCache(tmp_path).known("sig")
    assert len(known) == segment_shards._RUN + 1
    assert known[key(99, 1)] == score(99, 1)


def test_rows_are_found_after_their_shard_was_merged_away(tmp_path: Path) -> None:
    for writer in range(segment_shards._RUN - 1):
        SegmentCache(tmp_path, read=False).add("sig", {key(writer, 0): score(writer, 0)})
    SegmentCache(tmp_path, read=False).add("sig", {key(200, 0): score(200, 0)})
    SegmentCache(tmp_path).known("sig")  # merges
    reader = SegmentCache(tmp_path)
    reader.known("sig")
    (merged,) = tmp_path.rglob("*.parquet")
    os.rename(merged, merged.with_name("elsewhere-merged.parquet"))
    assert reader.lookup("sig", [key(200, 0)]) == {key(200, 0): score(200, 0)}


def test_a_shard_of_an_earlier_version_is_read_and_merged(tmp_path: Path) -> None:
    """Its rows are in no order, and it has no details."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    SegmentCache(tmp_path).add("sig", {key(0, 0): score(0, 0)})
    (first,) = tmp_path.rglob("*.parquet")
    keys = [key(writer, 9) for writer in (7, 3, 5)]
    columns = {
        "key": pa.array(keys, pa.binary(32)),
        "score": pa.array([7.0, 3.0, 5.0]),
        "stats": pa.array([[1.0], None, [2.0]]),
    }
    pq.write_table(pa.table(columns), first.with_name("old.parquet"))
    values = (SegmentScore(7.0, (1.0,)), SegmentScore(3.0), SegmentScore(5.0, (2.0,)))
    expected = dict(zip(keys, values, strict=True))
    assert SegmentCache(tmp_path).lookup("sig", keys) == expected
    for writer in range(1, segment_shards._RUN):
        SegmentCache(tmp_path, read=False).add("sig", {key(writer, 0): score(writer, 0)})
    assert SegmentCache(tmp_path).lookup("sig", keys) == expected
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    alike = [bytes(8) + bytes([number]) * 24 for number in range(5)]
    SegmentCache(tmp_path).add("sig", {k: SegmentScore(float(n)) for n, k in enumerate(alike[:4])})
    found = SegmentCache(tmp_path).lookup("sig", alike)
    assert found == {k: SegmentScore(float(n)) for n, k in enumerate(alike[:4])}


def test_the_starts_of_a_slice_are_those_of_its_rows(tmp_path: Path) -> None:
    SegmentCache(tmp_path).add("sig", {key(0, s): score(0, s) for s in range(6)})
    (path,) = tmp_path.rglob("*.parquet")
    table = segment_shards._read(path, segment_shards.COLUMNS)
    assert table is not None
    whole = segment_shards.key_starts(table)
    np.testing.assert_array_equal(segment_shards.key_starts(table.slice(2, 3)), whole[2:5])
    assert len(segment_shards.key_starts(table.slice(6))) == 0
