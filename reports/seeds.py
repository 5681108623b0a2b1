"""What several training runs of one method say together. The unit is one run, not one segment."""

import numpy as np

from reports.corpus import Array


def interquartile_mean(scores: Array) -> Array:
    """Mean of the middle half of ``(..., runs, test sets)``: a quarter of all values is cut at each end.

    Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    middle: Array = flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)
    return middle


def stratified_interval(scores: Array, *, trials: int, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of the interquartile mean, runs resampled within each test set.

    Args:
        scores: ``(runs, test sets)``; at least three runs (fewer say nothing about their spread).
        trials: number of resamples.
        rng: the generator of the draws.

    Raises:
        ValueError: fewer than three runs.
    """
    runs, sets = scores.shape
    if runs < 3:
        raise ValueError(f"an interval over seeds needs at least three runs, got {runs}")
    resampled = np.empty((trials, runs, sets))
    for column in range(sets):
        resampled[:, :, column] = scores[rng.integers(0, runs, size=(trials, runs)), column]
    low, high = np.percentile(interquartile_mean(resampled), [2.5, 97.5])
    return float(low), float(high)


def probability_of_improvement(first: Array, second: Array) -> float:
    """P(X > Y) for a run of the first and a run of the second method, ties counted half; ``(runs,)`` each.

    Source: Mann-Whitney U over the number of pairs; Agarwal et al. 2021.
    """
    larger = np.sign(first[:, np.newaxis] - second[np.newaxis, :])
    return float(((larger + 1) / 2).mean())
