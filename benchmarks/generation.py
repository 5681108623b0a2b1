"""Many checkpoints in one engine of vLLM: seconds to change its weights, and against an engine for each.

python -m benchmarks.generation

Eight checkpoints of a Llama of 1.8 M parameters, 64 prompts each. Of the fresh engines only some are started;
the time of all is reckoned from them.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.table import Row, identical, plain, run
from benchmarks.workloads import EOS, FIRST_WORD, PAD, word_tokenizer
from eval.generation.backends import Batch, ModelSource, open_backend
from eval.generation.decoding import Decoding
from eval.generation.engines import shared_engines

CHECKPOINTS, FRESH, PROMPTS, VOCABULARY = 8, (1, 7), 64, 5000
SETTINGS = Decoding(max_new_tokens=32)
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def _write(folder: Path) -> None:
    """Checkpoints with random weights of some spread: their outputs are no ties."""
    tokenizer = word_tokenizer(VOCABULARY)
    for number in range(CHECKPOINTS):
        torch.manual_seed(number)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=EOS,
            initializer_range=0.1,
            **SHAPE,
        )
        path = folder / str(number)
        LlamaForCausalLM(config).save_pretrained(path)
        tokenizer.save_pretrained(path)


def _generated(path: Path, prompts: list[list[int]]) -> tuple[float, float, Batch]:
    """Seconds until the weights are there, seconds with generation, outputs."""
    started = time.perf_counter()
    backend = open_backend("vllm", ModelSource(str(path)))
    ready = time.perf_counter() - started
    found = [pair for batch in backend.generate(prompts, SETTINGS) for pair in batch]
    return ready, time.perf_counter() - started, sorted(found, key=lambda pair: pair[0])


def measure() -> list[Row]:
    """Seconds of a reload, of all checkpoints in one engine and in fresh ones; whether outputs are equal."""
    if importlib.util.find_spec("vllm") is None:
        return [plain("checkpoints in one engine", "vLLM is not installed")]
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(FIRST_WORD, VOCABULARY, (PROMPTS, 12), generator=generator).tolist()
    engines = shared_engines()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder)
        shared = [_generated(folder / str(number), prompts) for number in range(CHECKPOINTS)]
        reloads, same, fresh = engines.reloaded, True, []
        engines.close()
        for number in FRESH:
            started = time.perf_counter()
            same &= _generated(folder / str(number), prompts)[2] == shared[number][2]
            engines.close()
            fresh.append(time.perf_counter() - started)
    together, apart = sum(seconds for _, seconds, _ in shared), CHECKPOINTS * statistics.mean(fresh)
    different = len({str(outputs) for *_, outputs in shared})
    return [
        plain("checkpoints reloaded in place", f"{reloads} of {CHECKPOINTS - 1}"),
        plain(
            "reload of a checkpoint, seconds", f"{statistics.median(ready for ready, *_ in shared[1:]):.2f}"
        ),
        plain(f"{CHECKPOINTS} checkpoints in one engine, seconds", f"{together:.1f}"),
        plain(f"{CHECKPOINTS} engines, seconds (from {len(FRESH)})", f"{apart:.1f}"),
        plain("engines / one engine", f"{apart / together:.1f}"),
        identical(f"outputs equal to fresh engines' ({different} differ among themselves)", same),
    ]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
