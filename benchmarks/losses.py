"""What a loss costs beside the model: forward and backward of every loss, and one forward of a small Llama.

python -m benchmarks.losses

The batch is one of 1,024 pairs of 32 tokens each (or completions, or rankings of 4), for losses and model.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.table import Row, plain, run
from po.methods import METHODS
from po.methods.method import Method

BATCH, CANDIDATES, TOKENS, ROWS_AT_ONCE, REPEATS = 1024, 4, 32, 256, 30
SCALARS = ("kl", "reward_shift", "batch_margin", "running_margin")
SHAPE = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4}


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of several runs, without the first."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def _input(name: str, method: Method, generator: torch.Generator) -> Tensor:
    """A plausible tensor for an input of a loss."""
    if name in SCALARS:
        return torch.zeros(())
    size = (BATCH, CANDIDATES) if method.data == "ranked" else (BATCH,)
    chance = torch.rand(size, generator=generator)
    if name == "desirable":
        return chance > 0.5
    if name == "candidate_mask":
        return torch.ones(size, dtype=torch.bool)
    if name.endswith("_length"):
        return torch.full(size, TOKENS)
    if name in ("kept", "density_ratio"):
        return torch.ones(size)
    if name.endswith(("_score", "_entropy", "_kl", "_probability")):
        return chance
    values = -1 - chance if method.logps == "mean" else -TOKENS * (1 + chance)
    return values.requires_grad_(name.startswith("policy"))


def _loss_seconds(method: Method, generator: torch.Generator) -> float:
    inputs = [_input(name, method, generator) for name in method.inputs]
    inputs = [value.requires_grad_() if method.data == "supervised" else value for value in inputs]

    def step() -> None:
        method.loss(*inputs).mean().backward()

    return _seconds(step, REPEATS)


def _model_seconds() -> float:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=5000, tie_word_embeddings=True, **SHAPE)).eval()
    ids = torch.randint(0, 5000, (2 * BATCH, TOKENS))

    def forward() -> None:
        with torch.no_grad():
            for rows in ids.split(ROWS_AT_ONCE):
                model(input_ids=rows, use_cache=False)

    return _seconds(forward, 2)


def measure() -> list[Row]:
    """Milliseconds of every loss; seconds of the model; how many times longer it takes than they do."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    seconds = {name: _loss_seconds(method, generator) for name, method in METHODS.items()}
    model, slowest = _model_seconds(), max(seconds, key=lambda name: seconds[name])
    return [
        *(
            plain(f"loss and gradient of {name}, ms", f"{1000 * value:.2f}")
            for name, value in seconds.items()
        ),
        plain("forward of a Llama of 1 M parameters, ms", f"{1000 * model:.0f}"),
        plain("that forward / median loss", f"{model / statistics.median(seconds.values()):.0f}"),
        plain(f"that forward / slowest loss ({slowest})", f"{model / seconds[slowest]:.0f}"),
    ]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
