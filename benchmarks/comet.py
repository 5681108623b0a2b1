"""COMET of many systems on one test set: our scorer against one load and one predict for each system.

python -m benchmarks.comet

The model is a COMET-22 of 6 layers of 256 (not 24 of 1024) with random weights. Both sides include the
start of one Python process; scores are compared in the same run.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import Row, equal_within, greatest, plain, run
from eval.metrics.base import Example
from eval.metrics.comet import Comet
from eval.neural.environments import python_of
from eval.neural.pool import shared_pool

SYSTEMS, SEGMENTS, BATCH = 16, 100, 16
SEGMENT_WORDS = (5, 40)
REPLACED = 0.3
LIMIT_S = 1800
TOLERANCE = 1e-5  # of a score

MAKE = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[2])
import tiny_comet
from comet.models import RegressionMetric
root = pathlib.Path(sys.argv[1])
shape = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8)
tiny_comet.make_encoder(root / "encoder", json.load(sys.stdin), shape, vocabulary=4000, positions=514)
model = RegressionMetric(
    pretrained_model=str(root / "encoder"), hidden_sizes=[768, 256], load_pretrained_weights=False,
    local_files_only=True, layer_norm=False,
)
tiny_comet.save(tiny_comet.shaken(model, 0), root / "model")
"""

PEER = """
import json, sys
from comet import load_from_checkpoint
found = []
for samples in json.load(sys.stdin):
    model = load_from_checkpoint(sys.argv[1], local_files_only=True)
    said = model.predict(samples, batch_size=int(sys.argv[2]), gpus=0, num_workers=0, progress_bar=False)
    found.append(said["scores"])
print("\\n" + json.dumps(found))
"""


def _systems() -> list[list[dict[str, str]]]:
    """Outputs of systems: the reference with other words in places; sources and references are shared."""
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(3000)]

    def text() -> list[str]:
        return chance.choices(words, k=chance.randint(*SEGMENT_WORDS))

    sources, references = ([text() for _ in range(SEGMENTS)] for _ in range(2))

    def output(reference: list[str]) -> str:
        return " ".join(chance.choice(words) if chance.random() < REPLACED else word for word in reference)

    return [
        [
            {"src": " ".join(source), "mt": output(reference), "ref": " ".join(reference)}
            for source, reference in zip(sources, references, strict=True)
        ]
        for _ in range(SYSTEMS)
    ]


def _run(script: str, *arguments: str, given: Any) -> str:
    command = [str(python_of("metrics")), "-c", script, *arguments]
    done = subprocess.run(
        command, input=json.dumps(given), text=True, capture_output=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


def measure() -> list[Row]:
    """Seconds of either side, their ratio, and the greatest difference between their scores.

    Raises:
        RuntimeError: the metrics environment lacks something, or our scores hardly differ from one another.
    """
    systems = _systems()
    examples = [
        Example(str(number), sample["mt"], (sample["ref"],), sample["src"])
        for number, sample in enumerate(sample for samples in systems for sample in samples)
    ]
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(__file__).resolve().parents[1] / "tests"
        _run(MAKE, folder, str(tests), given=[text for sample in systems[0] for text in sample.values()])
        checkpoint = f"{folder}/model/checkpoints/model.ckpt"
        started = time.perf_counter()
        theirs = json.loads(_run(PEER, checkpoint, str(BATCH), given=systems).splitlines()[-1])
        peer_s = time.perf_counter() - started
        metric = Comet("comet", model=checkpoint, trusted=True, batch_size=BATCH)
        pool = shared_pool()
        started = time.perf_counter()
        try:
            ours = [segment.score for segment in metric.score_segments(examples)]
        finally:
            our_s = time.perf_counter() - started
            pool.close()
    flat = [score for scores in theirs for score in scores]
    gap = greatest(abs(one - other) for one, other in zip(ours, flat, strict=True))
    if len({round(score, 4) for score in ours}) < SEGMENTS:
        raise RuntimeError("our scores hardly differ from one another")
    what = f"COMET of {SYSTEMS} systems x {SEGMENTS} segments"
    return [
        plain(f"{what}, load and predict for each, seconds", f"{peer_s:.1f}"),
        plain(f"{what}, ours, seconds", f"{our_s:.1f}"),
        plain("COMET, library / ours", f"{peer_s / our_s:.2f}"),
        equal_within("COMET, greatest difference of a score", gap, TOLERANCE),
    ]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
