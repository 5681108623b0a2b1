"""The significance stage beside sacreBLEU's: ten systems, two thousand segments, a thousand resamples.

python -m benchmarks.scoring

Three figures, each in turn with sacreBLEU and by medians: the resampling alone, from the same statistics; the
whole stage, where sacreBLEU extracts the statistics again and ours are read from a file as a report does; and
how far apart the p-values are, which is not at all. The text is generated.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sacrebleu.metrics import CHRF
from sacrebleu.significance import PairedTest

from benchmarks import comet
from benchmarks.table import Row, identical, plain, run
from eval.neural.environments import python_of
from reports.sacrebleu_compatible import SEED, paired_ar, paired_bs

SYSTEMS, SEGMENTS, SAMPLES, REPEATS = 10, 2000, 1000, 5
AR_TRIALS = 200  # sacreBLEU's randomization is slow; the equality of p does not need more
AGGREGATION = {"kind": "chrf", "beta": 2}
VOCABULARY = 3000


def _texts() -> tuple[list[list[str]], list[str]]:
    """Outputs of the systems, and the references: random words, some of them replaced."""
    draw = random.Random(0)
    letters = "aeinrstdhulcgmobwfkzpvjyxq"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(VOCABULARY)]
    references = [" ".join(draw.choices(words, k=draw.randint(8, 30))) for _ in range(SEGMENTS)]

    def outputs(rate: float) -> list[str]:
        return [
            " ".join(draw.choice(words) if draw.random() < rate else word for word in line.split())
            for line in references
        ]

    return [outputs(0.30 + 0.002 * system) for system in range(SYSTEMS)], references


def _peer_scores(rows: np.ndarray[Any, Any], indices: np.ndarray[Any, Any]) -> list[float]:
    """SacreBLEU's way from statistics to the scores of the resamples of one system."""
    metric, narrow = CHRF(), rows.astype("float32")
    return [metric._compute_score_from_stats(each.sum(0)).score for each in narrow[indices]]


def _peer_resampling(systems: np.ndarray[Any, Any]) -> None:
    """What sacreBLEU does with statistics: the baseline alone, then each system and the baseline again."""
    for index, rows in enumerate(systems):
        indices = np.random.default_rng(SEED).choice(SEGMENTS, size=(SAMPLES, SEGMENTS), replace=True)
        _peer_scores(rows, indices)
        if index:
            _peer_scores(systems[0], indices)


def _peer_whole(outputs: list[list[str]], references: list[str], kind: str, samples: int) -> list[float]:
    named = [(f"system {index}", texts) for index, texts in enumerate(outputs)]
    test = PairedTest(named, {"chrF2": CHRF()}, [references], test_type=kind, n_samples=samples)
    return [float(result.p_value) for result in test()[1]["chrF2"][1:]]  # type: ignore[union-attr, arg-type]


def _ours_whole(folder: Path) -> list[float]:
    """From the files of segment scores to the p-values."""
    frames = [pd.read_parquet(path, columns=["stats"]) for path in sorted(folder.glob("*.parquet"))]
    systems = np.stack([np.stack(frame["stats"].to_list()) for frame in frames]).astype(np.float64)
    return [float(p) for p in paired_bs(systems, AGGREGATION, samples=SAMPLES).p[1:]]


def _in_turn(works: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each, run in turn; and what each gave the last time."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results = {}
    for _ in range(REPEATS):
        for name, work in works.items():
            started = time.perf_counter()
            results[name] = work()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}, results


def _significance() -> list[Row]:
    outputs, references = _texts()
    extracted = [CHRF()._extract_corpus_statistics(texts, [references]) for texts in outputs]
    systems = np.array(extracted, dtype=np.float64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, rows in enumerate(extracted):
            lines = [[float(value) for value in row] for row in rows]
            pd.DataFrame({"stats": lines}).to_parquet(folder / f"{index:02d}.parquet")
        found, results = _in_turn(
            {
                "resampling, peer": lambda: _peer_resampling(systems),
                "resampling, ours": lambda: paired_bs(systems, AGGREGATION, samples=SAMPLES),
                "whole, peer": lambda: _peer_whole(outputs, references, "bs", SAMPLES),
                "whole, ours": lambda: _ours_whole(folder),
            }
        )
    same_bs = results["whole, ours"] == results["whole, peer"]
    ours_ar = [float(p) for p in paired_ar(systems, AGGREGATION, trials=AR_TRIALS)[1:]]
    same_ar = ours_ar == _peer_whole(outputs, references, "ar", AR_TRIALS)
    ratios = {kind: found[f"{kind}, peer"] / found[f"{kind}, ours"] for kind in ("resampling", "whole")}
    return [
        plain("paired bootstrap, sacreBLEU's resampling, seconds", f"{found['resampling, peer']:.3f}"),
        plain("paired bootstrap, ours, seconds", f"{found['resampling, ours']:.3f}"),
        plain("resampling, sacreBLEU / ours", f"{ratios['resampling']:.0f}"),
        plain("whole stage, sacreBLEU, seconds", f"{found['whole, peer']:.3f}"),
        plain("whole stage, ours with kept statistics, seconds", f"{found['whole, ours']:.3f}"),
        plain("whole stage, sacreBLEU / ours", f"{ratios['whole']:.1f}"),
        identical("p-values identical, bootstrap", same_bs),
        identical("p-values identical, randomization", same_ar),
    ]


def measure() -> list[Row]:
    """The figures of the significance stage, and those of COMET where its environment is."""
    if not python_of("metrics").exists():
        return [*_significance(), plain("COMET of many systems", "not measured; run: make setup-metrics")]
    return _significance() + comet.measure()


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
