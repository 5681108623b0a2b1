"""Paired tests and intervals over the segments of one test set.

All functions take per-segment sufficient statistics: of the baseline ``(n, k)`` or ``(m, n, k)``, of the
systems ``(m, n, k)``, for m comparisons, n segments in the same order and k statistics; and a ``formula``
from summed statistics ``(..., k)`` to corpus scores ``(...)``. All comparisons of one call see the same
random swaps (or resamples), so the p of one system does not depend on which others stand in the table.

They speak of one test set and one set of trained models; they say nothing about another training seed.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reports.corpus import Array, Formula

EXACT_LIMIT = 16  # 2**16 assignments are fewer than ten thousand random ones are worth
TOLERANCE = 1e-12  # sums in another order differ by rounding; an equal difference must count as reached
_CHUNK_ELEMENTS = 2_000_000  # of the largest array held at a time: 16 MB


def _stacked(baseline: Array, systems: Array) -> tuple[Array, Array]:
    """Check shapes and give the baseline a leading axis that broadcasts against the systems."""
    if baseline.ndim == 2:
        baseline = baseline[np.newaxis]
    if systems.ndim != 3 or baseline.shape[1:] != systems.shape[1:] or len(baseline) not in (1, len(systems)):
        raise ValueError(
            "statistics must be (m, segments, k), and for the baseline (segments, k) or the same; "
            f"got systems {systems.shape}, baseline {baseline.shape}"
        )
    if systems.shape[1] == 0:
        raise ValueError("a paired test needs at least one segment")
    return baseline, systems


def _columns(statistics: Array) -> Array:
    """``(m, n, k)`` as ``(n, m * k)``, so that one matrix product sums all systems."""
    systems, segments, width = statistics.shape
    return statistics.transpose(1, 0, 2).reshape(segments, systems * width)


def _chunks(trials: int, row_elements: int) -> Iterator[int]:
    size = max(1, _CHUNK_ELEMENTS // max(1, row_elements))
    for start in range(0, trials, size):
        yield min(size, trials - start)


def _all_swaps(segments: int) -> Iterator[Array]:
    codes = np.arange(2**segments)
    for part in np.array_split(codes, max(1, 2**segments // 4096)):
        yield ((part[:, np.newaxis] >> np.arange(segments)) & 1).astype(np.float64)


def _random_swaps(segments: int, trials: int, rng: np.random.Generator, row_elements: int) -> Iterator[Array]:
    for size in _chunks(trials, row_elements):
        yield rng.integers(0, 2, size=(size, segments), dtype=np.uint8).astype(np.float64)


def difference(baseline: Array, systems: Array, formula: Formula) -> Array:
    """Corpus score of each system minus that of its baseline: ``(m,)``, in the metric's unit."""
    baseline, systems = _stacked(baseline, systems)
    return formula(systems.sum(axis=1)) - formula(baseline.sum(axis=1))


def approximate_randomization(
    baseline: Array, systems: Array, formula: Formula, *, trials: int, rng: np.random.Generator
) -> Array:
    """Two-sided p of each difference under random swaps of the two systems' outputs, segment by segment.

    Up to 16 segments all assignments are enumerated and p is the exact share; above, it is
    ``(1 + #{|d_t| >= |d|}) / (trials + 1)``, which never is 0. Identical outputs give p = 1.

    Args:
        baseline: ``(n, k)``, or ``(m, n, k)`` with one baseline a comparison.
        systems: ``(m, n, k)``.
        formula: summed statistics to corpus scores.
        trials: number of random assignments.
        rng: the generator of the swaps.

    Returns:
        p-values ``(m,)``.

    Raises:
        ValueError: shapes that do not fit, no segments, or no trials.

    Source: Riezler and Maxwell 2005; Noreen 1989.
    """
    baseline, systems = _stacked(baseline, systems)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    gap = systems - baseline
    count, segments, width = gap.shape
    columns = _columns(gap)
    low, high = baseline.sum(axis=1), systems.sum(axis=1)
    real = np.abs(formula(high) - formula(low))
    exact = segments <= EXACT_LIMIT
    swaps = _all_swaps(segments) if exact else _random_swaps(segments, trials, rng, max(columns.shape))
    reached = np.zeros(count)
    for chosen in swaps:
        moved = (chosen @ columns).reshape(-1, count, width)
        swapped = np.abs(formula(high - moved) - formula(low + moved))
        reached += (swapped >= real - TOLERANCE).sum(axis=0)
    return reached / 2**segments if exact else (reached + 1) / (trials + 1)


def bootstrap_interval(
    baseline: Array,
    systems: Array,
    formula: Formula,
    *,
    trials: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Array:
    """Percentile interval of each difference under paired resampling of segments.

    As many segments are drawn, with replacement, as the test set has; one draw serves all systems.

    Returns:
        ``(m, 2)``: lower and upper bound, in the metric's unit.

    Raises:
        ValueError: shapes that do not fit, no segments, or no trials.

    Source: Koehn 2004.
    """
    baseline, systems = _stacked(baseline, systems)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    segments, width = systems.shape[1:]
    both = _columns(np.concatenate([baseline, systems]))
    differences = []
    for size in _chunks(trials, max(both.shape)):
        drawn = rng.integers(0, segments, size=(size, segments))
        offsets = segments * np.arange(size)[:, np.newaxis]
        weights = np.bincount((drawn + offsets).ravel(), minlength=size * segments).reshape(size, segments)
        scores = formula((weights.astype(np.float64) @ both).reshape(size, -1, width))
        differences.append(scores[:, len(baseline) :] - scores[:, : len(baseline)])
    tail = 100 * (1 - level) / 2
    bounds: Array = np.percentile(np.concatenate(differences), [tail, 100 - tail], axis=0).T
    return bounds


def holm(p_values: Array) -> Array:
    """Holm's step-down adjustment of one family of p-values, in the order given.

    Source: Holm 1979. Example: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    result = np.empty_like(p_values, dtype=np.float64)
    result[order] = adjusted
    return result


def wins_ties_losses(
    baseline: Array, system: Array, *, higher_is_better: bool = True, tie: float = 1e-9
) -> tuple[int, int, int]:
    """How many segments the system wins, ties and loses, by segment scores ``(n,)``."""
    gain = (system - baseline) * (1 if higher_is_better else -1)
    within: NDArray[np.bool_] = np.abs(gain) <= tie
    wins = int(((gain > 0) & ~within).sum())
    ties = int(within.sum())
    return wins, ties, len(gain) - wins - ties
