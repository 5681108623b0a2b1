"""One column of the main table: each method's scores over its seeds and its test against the baseline.

The statistics of a segment are averaged over a method's seeds, then tested; each seed is tested beside it.
The family of Holm's adjustment is the column: one metric on one test set of one model and task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from reports.columns import Column, Comparison, Resampling, Row, Seed
from reports.corpus import Array, formula
from reports.results import Score
from reports.seeds import probability_of_improvement, stratified_interval
from reports.significance import (
    approximate_randomization,
    bootstrap_interval,
    difference,
    holm,
    wins_ties_losses,
)
from reports.variants import Variant

ALPHA = 0.05
MIN_SEEDS = 2  # one training run says nothing about the next one
MEAN_TIE = 0.001  # learned metrics move by this much with batch size and hardware
SUM_TIE = 1e-9


def verdict(gain: float, p_holm: float, seed_gains: Sequence[float]) -> str:
    """The word for a comparison; ``gain`` and ``seed_gains`` are positive where the method is better.

    A difference is called better or worse only if it is significant after Holm's adjustment, was seen with at
    least two seeds, and has the same sign in each of them.
    """
    if p_holm >= ALPHA:
        return "no difference shown"
    if len(seed_gains) < MIN_SEEDS:
        return "one seed"
    if gain > 0 and all(each > 0 for each in seed_gains):
        return "better"
    if gain < 0 and all(each < 0 for each in seed_gains):
        return "worse"
    return "no difference shown"


def _found(rows: Sequence[Variant], test: str, metric: str) -> dict[str, dict[Seed, Score]]:
    """The scores of each row by seed."""
    return {
        row.label: {
            cell.seed: cell.tests[test].scores[metric]
            for cell in row.cells
            if test in cell.tests and metric in cell.tests[test].scores
        }
        for row in rows
    }


def _comparable(
    found: Mapping[str, Mapping[Seed, Score]], leader: Score
) -> tuple[dict[str, dict[Seed, Score]], list[str]]:
    """Keep the scores with the leader's signature and segments; say what was refused and why."""
    kept: dict[str, dict[Seed, Score]] = {}
    refused = []
    for label, scores in found.items():
        kept[label] = {}
        for seed, score in scores.items():
            if score.signature != leader.signature:
                refused.append(
                    f"{label}, seed {seed}: signature {score.signature}, the column has {leader.signature}"
                )
            elif score.ids != leader.ids:
                counts = f"{len(score.ids)} against {len(leader.ids)}"
                refused.append(f"{label}, seed {seed}: other segments than the column's ({counts})")
            else:
                kept[label][seed] = score
    return kept, refused


def _missing(row: Variant, scores: Mapping[Seed, Score], found: Mapping[Seed, Score]) -> tuple[str, ...]:
    reasons = []
    for cell in row.cells:
        if cell.seed in scores:
            continue
        if cell.seed in found:
            reasons.append("not comparable")
        else:
            reasons.append("not scored" if cell.state == "done" else cell.why_missing)
    return tuple(dict.fromkeys(reasons))


def _pooled(scores: Mapping[Seed, Score]) -> Array:
    """Statistics ``(n, k)`` averaged over seeds."""
    mean: Array = np.mean([score.statistics for score in scores.values()], axis=0)
    return mean


def _opponents(
    method: Mapping[Seed, Score], baseline: Mapping[Seed, Score]
) -> dict[Seed, tuple[float, Array]]:
    """What each seed is compared with: the baseline's same seed, or its mean where the seeds differ."""
    if set(method) == set(baseline):
        return {seed: (score.value, score.statistics) for seed, score in baseline.items()}
    mean = float(np.mean([score.value for score in baseline.values()]))
    return dict.fromkeys(method, (mean, _pooled(baseline)))


def _compare(
    method: Mapping[Seed, Score], baseline: Mapping[Seed, Score], resampling: Resampling
) -> Comparison:
    """A comparison not yet judged: Holm's p, and with it the verdict, needs the whole column."""
    leader = next(iter(baseline.values()))
    score = formula(leader.aggregation)
    opponents = _opponents(method, baseline)
    systems = np.stack([_pooled(method), *(method[seed].statistics for seed in opponents)])
    against = np.stack([_pooled(baseline), *(statistics for _, statistics in opponents.values())])
    trials = resampling.trials
    p_values = approximate_randomization(against, systems, score, trials=trials, rng=resampling.generator())
    pooled = against[:1], systems[:1], score
    low, high = bootstrap_interval(*pooled, trials=trials, rng=resampling.generator())[0]
    ours, theirs = (np.array([each.value for each in scores.values()]) for scores in (method, baseline))
    wins, ties, losses = wins_ties_losses(
        np.mean([each.segments for each in baseline.values()], axis=0),
        np.mean([each.segments for each in method.values()], axis=0),
        higher_is_better=leader.higher_is_better,
        tie=MEAN_TIE if leader.aggregation["kind"] == "mean" else SUM_TIE,
    )
    chance = probability_of_improvement(ours, theirs)
    seed_tests = zip(opponents.items(), p_values[1:], strict=True)
    return Comparison(
        difference=float(ours.mean() - theirs.mean()),
        pooled_difference=float(difference(*pooled)[0]),
        interval=(float(low), float(high)),
        p=float(p_values[0]),
        p_holm=float("nan"),
        by_seed={seed: (method[seed].value - value, float(p)) for (seed, (value, _)), p in seed_tests},
        wins=wins,
        ties=ties,
        losses=losses,
        improvement_probability=chance if leader.higher_is_better else 1 - chance,
        verdict="",
    )


def _judged(rows: Sequence[Row], higher_is_better: bool) -> tuple[Row, ...]:
    """The rows with Holm's p over all of them, and the verdicts that follow."""
    compared = [row.comparison.p for row in rows if row.comparison]
    adjusted = iter(holm(np.array(compared)))
    sign = 1 if higher_is_better else -1
    result = []
    for row in rows:
        if row.comparison:
            p_holm = float(next(adjusted))
            gains = [sign * gain for gain, _ in row.comparison.by_seed.values()]
            word = verdict(sign * row.comparison.difference, p_holm, gains)
            row = replace(row, comparison=replace(row.comparison, p_holm=p_holm, verdict=word))
        result.append(row)
    return tuple(result)


def _seed_interval(scores: Mapping[Seed, Score], resampling: Resampling) -> tuple[float, float] | None:
    if len(scores) < 3:
        return None
    values = np.array([[score.value] for score in scores.values()])
    return stratified_interval(values, trials=resampling.trials, rng=resampling.generator())


def column(
    rows: Sequence[Variant], baseline: Variant | None, test: str, metric: str, resampling: Resampling
) -> Column | None:
    """Compare all rows of one model and task on one metric of one test set.

    Args:
        rows: the methods, with their cells.
        baseline: the row that the others are tested against; without it scores are shown, untested.
        test: the test set.
        metric: the metric.
        resampling: number of random assignments and their seed.

    Returns:
        The column, or None if no row has that score.
    """
    found = _found(rows, test, metric)
    ordered = [*found.get(baseline.label if baseline else "", {}).values()]
    ordered += [score for scores in found.values() for score in scores.values()]
    if not ordered:
        return None
    leader = ordered[0]
    kept, refused = _comparable(found, leader)
    opponent = kept.get(baseline.label, {}) if baseline else {}
    made = [
        Row(
            variant=row,
            values={seed: score.value for seed, score in kept[row.label].items()},
            missing=_missing(row, kept[row.label], found[row.label]),
            seed_interval=_seed_interval(kept[row.label], resampling),
            is_baseline=row is baseline,
            comparison=_compare(kept[row.label], opponent, resampling)
            if opponent and kept[row.label] and row is not baseline
            else None,
        )
        for row in rows
    ]
    return Column(
        model=rows[0].cells[0].model,
        task=rows[0].cells[0].task,
        test=test,
        metric=metric,
        unit=leader.unit,
        higher_is_better=leader.higher_is_better,
        signature=leader.signature,
        n_segments=len(leader.ids),
        rows=_judged(made, leader.higher_is_better),
        refused=tuple(refused),
    )
