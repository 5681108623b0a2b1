"""A training step with and without `keep_freed_memory`, each in a process of its own, in turn.

python -m benchmarks.allocator
"""

import statistics
import subprocess
import sys

from benchmarks.table import Row, plain, run

RUNS = 3

STEP = """
import sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
from experiments.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.manual_seed(0)
shape = dict(hidden_size=256, intermediate_size=704, num_hidden_layers=5, num_attention_heads=8)
model = LlamaForCausalLM(LlamaConfig(vocab_size=5000, tie_word_embeddings=True, **shape))
ids = torch.randint(5000, (64, 50))
seconds = []
for _ in range(6):
    started = time.perf_counter()
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()
    seconds.append(time.perf_counter() - started)
print(sorted(seconds[1:])[2])
"""


def _seconds(mode: str) -> float:
    found = subprocess.run([sys.executable, "-c", STEP, mode], stdout=subprocess.PIPE, text=True, check=True)
    return float(found.stdout)


def measure() -> list[Row]:
    """Median seconds of a step in either mode, and their ratio."""
    found = [(_seconds("default"), _seconds("keep")) for _ in range(RUNS)]
    default, keep = (statistics.median(values) for values in zip(*found, strict=True))
    return [
        plain("training step, glibc as it is, seconds", f"{default:.3f}"),
        plain("training step, freed memory kept, seconds", f"{keep:.3f}"),
        plain("training step, as it is / kept", f"{default / keep:.2f}"),
    ]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
