"""Scoring of one system on one test set: only what is missing, through the cache of segments.

What models score is filled into the cache beforehand, for all systems together: see ``eval.scoring.fill``.
"""

import hashlib
import logging
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from eval.cells import Cell, EvaluationSet
from eval.diagnostics import System, diagnose, segment_lengths
from eval.faults import EvalError
from eval.metrics import METRICS, Metric, MetricUnavailable, Scores, SegmentScore, Signatures, known_metrics
from eval.metrics.base import Example
from eval.records import read_generations, read_json, read_rows
from eval.scoring.inputs import (
    InputError,
    count_inputs,
    listed,
    normalized,
    system_from_run,
    without_reference,
)
from eval.scoring.reference_tokens import with_reference_tokens
from eval.scoring.score_files import Digests, Measured, measured, read_measured, write_scores
from eval.scoring.segment_cache import SegmentCache, segment_key
from eval.scoring.win_rate import ReferenceScores, against_references

logger = logging.getLogger(__name__)

_NFC = "|norm:NFC"
_LOCK_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to score.

    Attributes:
        recompute: score again what is there; the cache should be one that reads nothing.
        nfc: bring all texts to Unicode's composed form first; part of the signature.
        skip_empty_references: leave out metrics that need references where a segment has an empty one,
            instead of failing.
    """

    recompute: bool = False
    nfc: bool = False
    skip_empty_references: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of scoring one test set.

    Attributes:
        path: its ``scores.json``.
        faults: messages of the metrics that could not be computed; the others are written all the same.
        entries: of ``scores.json``, for the metrics that were asked for.
    """

    path: Path
    faults: tuple[str, ...] = ()
    entries: tuple[Mapping[str, Any], ...] = ()


def usable_metrics(
    metrics: Sequence[Metric], examples: Sequence[Example], options: Options, place: str
) -> list[Metric]:
    """The metrics that these references allow.

    Raises:
        InputError: a reference is missing or empty, and the options do not say to leave metrics out.
    """
    bare = without_reference(examples)
    if not bare or not any("refs" in metric.needs for metric in metrics):
        return list(metrics)
    message = f"{place}: {len(bare)} segments without a reference or with an empty one: {listed(bare)}"
    if not options.skip_empty_references:
        raise InputError(f"{message}; repair the test set, or leave metrics out with --empty-references skip")
    left_out = [metric.name for metric in metrics if "refs" in metric.needs]
    logger.warning("%s; left out: %s", message, ", ".join(left_out))
    return [metric for metric in metrics if "refs" not in metric.needs]


def signatures_of(metric: Metric, system: System, *, nfc: bool) -> Signatures:
    """The signatures of a metric on these texts, normalization included."""
    found = metric.signatures(system.examples, system.target_lang)
    return Signatures(found.corpus + _NFC, found.segment + _NFC) if nfc else found


def score_system(
    metric: Metric, system: System, signatures: Signatures, cache: SegmentCache | None
) -> tuple[Scores, int]:
    """Score a system with one metric.

    Args:
        metric: one of :data:`eval.metrics.METRICS`.
        system: the outputs, normalized already if the signatures say so.
        signatures: of :func:`signatures_of`.
        cache: where segment scores are looked up and kept.

    Returns:
        The scores, and how many segments came from the cache.
    """
    metric.check(system.examples)
    kind = cache_kind(metric, signatures)
    keys = [segment_key(kind, e, with_prompt="prompt" in metric.needs) for e in system.examples]
    known: dict[bytes, SegmentScore] = {}
    if cache is not None:
        known = cache.lookup(kind, keys)
    hits = 0 if cache is None else cache.count_earlier(kind, keys)
    missing = {key: example for key, example in zip(keys, system.examples, strict=True) if key not in known}
    known |= score_missing(metric, missing, kind, system.target_lang, cache)
    return metric.assemble(system.examples, [known[key] for key in keys], signatures), hits


def cache_kind(metric: Metric, signatures: Signatures) -> str:
    """The cache's word for a metric with all that can change a segment's score."""
    return f"{metric.name}|{signatures.segment}"


def score_missing(
    metric: Metric,
    missing: Mapping[bytes, Example],
    kind: str,
    target_lang: str | None,
    cache: SegmentCache | None,
) -> dict[bytes, SegmentScore]:
    """Score segments and keep them as they come.

    Args:
        metric: what scores.
        missing: segments by their key in the cache.
        kind: of :func:`cache_kind`.
        target_lang: of the hypotheses.
        cache: where the scores are kept.

    Raises:
        EvalError: a segment cannot be scored, or its score is not finite; what came before is kept.
    """
    keys, examples = list(missing), list(missing.values())
    found: dict[bytes, SegmentScore] = {}
    for batch in metric.score_in_batches(examples, target_lang) if examples else ():
        metric.check_finite((examples[index], score) for index, score in batch.items())
        fresh = {keys[index]: score for index, score in batch.items()}
        if cache is not None:
            cache.add(kind, fresh)
        found |= fresh
    return found


def measure(metric: Metric, system: System, cache: SegmentCache | None, options: Options) -> Measured:
    """Score a system with one metric, in the form of the files; the score without empty outputs beside it."""
    started = time.perf_counter()
    signatures = signatures_of(metric, system, nfc=options.nfc)
    scores, hits = score_system(metric, system, signatures, cache)
    pairs = zip(system.examples, scores.segments, strict=True)
    spoken = [segment for example, segment in pairs if example.hypothesis.strip()]
    nonempty = metric.corpus_score(spoken) if 0 < len(spoken) < len(scores.segments) else None
    references = _against_references(metric, system, scores, cache)
    wall_s = time.perf_counter() - started
    if cache is not None:
        wall_s += cache.seconds.get(cache_kind(metric, signatures), 0.0) * (len(scores.segments) - hits)
    ids = [example.id for example in system.examples]
    return measured(metric, scores, ids, wall_s=wall_s, cached=hits, nonempty=nonempty, references=references)


def _against_references(
    metric: Metric, system: System, scores: Scores, cache: SegmentCache | None
) -> ReferenceScores | None:
    """What a metric that rates the references says of them; ``None`` where one is missing or empty."""
    if not metric.rates_references or without_reference(system.examples):
        return None
    theirs, _ = score_system(metric, system.of_references(), scores.signatures, cache)
    return against_references(metric, system, scores, theirs)


def _as_defined(cell: Cell, names: Container[str]) -> Mapping[str, Metric]:
    """Metrics as the cell's experiment sets them: scores are held against nothing else."""
    definitions = {name: each for name, each in cell.definitions.items() if name in names}
    try:
        return known_metrics(definitions)
    except EvalError as fault:
        raise EvalError(f"{cell.folder}: cell.json: {fault}") from fault


def _still_valid(kept: Measured, system: System, known: Mapping[str, Metric]) -> bool:
    """Whether the installed version would give a stored score the signature that it has."""
    metric = known.get(kept.entry["metric"])
    if metric is None:
        return True  # of another environment or manifest; its signature speaks for it
    try:
        nfc = kept.entry["signature"].endswith(_NFC)
        found = signatures_of(metric, system, nfc=nfc)
    except MetricUnavailable:
        return True
    if [found.corpus, found.segment] != kept.signatures:
        logger.warning(
            "%s: its stored score was made with %s and is dropped", metric.name, kept.signatures[0]
        )
        return False
    return True


def digests_of(cell: Cell, test: EvaluationSet) -> Digests:
    """What scores of a test set would be computed from."""
    paths = (test.folder / "generations.jsonl", test.rows)
    generations, rows = (hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return Digests(generations, rows, cell.postprocess)


def read_system(cell: Cell, test: EvaluationSet, options: Options) -> System:
    """The outputs of a cell on a test set, as they are scored.

    Raises:
        EvalError: a file is missing, broken, not complete, or does not belong to the others.
    """
    rows = read_rows(test.rows)
    path = test.folder / "generations.jsonl"
    generations = read_generations(path)
    if not read_json(test.folder / "generation.json").get("complete"):
        raise InputError(f"{path}: not complete; run 'python -m eval.generate {cell.folder}' first")
    system = system_from_run(cell, rows, generations, path)
    return normalized(system) if options.nfc else system


def score_test(
    cell: Cell, test: EvaluationSet, metrics: Sequence[Metric], cache: SegmentCache, options: Options
) -> Outcome:
    """Score one test set of a cell, as far as that is not done already.

    Args:
        cell: which task and languages.
        test: has generations.
        metrics: those that are asked for; scores of others are kept where inputs and signature are unchanged.
        cache: of segment scores, shared by all cells.
        options: how to score.

    Raises:
        EvalError: an input is missing, broken or does not belong to the others; nothing is scored then.
    """
    system = read_system(cell, test, options)
    asked = usable_metrics(metrics, system.examples, options, str(test.folder))
    ids = [example.id for example in system.examples]
    digests = digests_of(cell, test)
    stored = read_measured(test.folder, digests, ids)
    known = {**_as_defined(cell, stored), **{metric.name: metric for metric in metrics}}
    found = {name: each for name, each in stored.items() if _still_valid(each, system, known)}
    faults, computed = [], 0
    for metric in asked:
        try:
            signature = signatures_of(metric, system, nfc=options.nfc).corpus
            there = metric.name in found and found[metric.name].entry["signature"] == signature
            if options.recompute or not there:
                found[metric.name] = measure(metric, system, cache, options)
                computed += 1
                _report_hits(test.folder, found[metric.name])
        except EvalError as fault:
            faults.append(f"{test.folder}: {fault}")
    if computed or len(found) < len(stored) or not (test.folder / "scores.json").is_file():
        with _locked(test.folder, cache.folder):
            # what another process has written since must not be lost
            newer = read_measured(test.folder, digests, ids)
            others = {name: each for name, each in newer.items() if name not in stored and name not in found}
            _write(test.folder, digests, others | found, with_reference_tokens(cell, system))
    entries = tuple(found[metric.name].entry for metric in asked if metric.name in found)
    return Outcome(test.folder / "scores.json", tuple(faults), entries)


def _locked(folder: Path, cache: Path) -> FileLock:
    """One writer of a folder's scores at a time; waits for the other, but not without end."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    locks = cache / "locks" / name[:2]  # a study may have ten thousand and more
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / name, timeout=_LOCK_S)


def _report_hits(folder: Path, each: Measured) -> None:
    if each.entry["cached"]:
        metric, cached, n = (each.entry[key] for key in ("metric", "cached", "n"))
        logger.info("%s: %s: %d of %d segments from the cache", folder, metric, cached, n)


def _write(folder: Path, digests: Digests, found: dict[str, Measured], system: System) -> None:
    ids = [example.id for example in system.examples]
    ordered = {name: found[name] for name in sorted(found, key=_table_order)}
    counts = count_inputs(system)
    write_scores(folder, digests, ordered, diagnose(system), segment_lengths(system), counts, ids)


def _table_order(name: str) -> tuple[int, str]:
    names = list(METRICS)
    return (names.index(name) if name in METRICS else len(names), name)
