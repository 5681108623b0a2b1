"""What the benchmarks of training run on: pairs of random tokens, models with random weights.

Needs torch and transformers only, so that it also runs on a machine that has nothing else.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS, FIRST_WORD = 0, 1, 3
PAIRS_A_BATCH = 8
SIGMA = 0.4
LONGEST = 1000  # of prompt and completion together: TRL cuts at 1,024, and nothing shall be cut
POOL_BATCHES = 32

Row = dict[str, Any]
Batches = list[list[Row]]


@dataclass(frozen=True)
class Workload:
    """Median lengths in tokens; lengths are lognormal with ``SIGMA``."""

    name: str
    prompt: int
    completion: int


@dataclass(frozen=True)
class Shape:
    """A Llama with untied embeddings, which are counted neither in ``body`` nor in ``head``."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    kv_heads: int | None = None

    @property
    def body(self) -> int:
        """Parameters of the layers' matrices."""
        kv = self.hidden * (self.kv_heads or self.heads) // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * kv
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Parameters of the language-model head."""
        return self.hidden * self.vocabulary

    def build(
        self, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu", attention: str = "sdpa"
    ) -> Any:
        """The model with random weights, in training mode."""
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads or self.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=EOS,
            attn_implementation=attention,
        )
        with torch.device(device):
            return LlamaForCausalLM(config).to(dtype).train()


WORKLOADS = MappingProxyType({w.name: w for w in (Workload("MT", 60, 40), Workload("summ", 350, 40))})
MODELS = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            Shape("matched", 384, 1024, 10, 6, 9_600),  # body 17.7 M, head 3.7 M
            Shape("real32k", 512, 1376, 8, 8, 32_000),  # body 25.3 M, head 16.4 M
            Shape(
                "1.7b-128k", 2048, 5632, 24, 16, 128_000, 8
            ),  # body 1.13 B, head 0.26 B, as in EuroLLM-1.7B
            Shape("1.7b-256k", 2048, 5632, 24, 16, 256_000, 8),  # the same body, the vocabulary of Gemma-2
        )
    }
)


def random_rows(workload: Workload, vocabulary: int, n_rows: int, seed: int) -> list[Row]:
    """Pairs of random tokens; completions end with EOS."""
    chance = random.Random(seed)

    def length(median: int, most: int) -> int:
        return max(4, min(most, round(median * chance.lognormvariate(0, SIGMA))))

    def ids(n_tokens: int) -> list[int]:
        return [chance.randrange(FIRST_WORD, vocabulary) for _ in range(n_tokens)]

    rows = []
    for _ in range(n_rows):
        chosen, rejected = ([*ids(length(workload.completion, LONGEST // 4) - 1), EOS] for _ in range(2))
        prompt = ids(length(workload.prompt, LONGEST - LONGEST // 4))
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return rows


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word is a token, ``w7`` has id 7; no token is put before or behind a text."""
    words = {"<pad>": PAD, "</s>": EOS, "<unk>": 2} | {f"w{i}": i for i in range(FIRST_WORD, vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def texts_of(row: Row) -> dict[str, str]:
    """A pair as texts: without EOS, which a trainer adds itself; the prompt ends with its blank."""

    def text(ids: Sequence[int]) -> str:
        return " ".join(f"w{number}" for number in ids)

    return {
        "prompt": text(row["prompt_ids"]) + " ",
        "chosen": text(row["chosen_ids"][:-1]),
        "rejected": text(row["rejected_ids"][:-1]),
    }


def shuffled_and_sorted(
    workload: Workload, vocabulary: int, n_batches: int, seed: int = 0, pairs: int = PAIRS_A_BATCH
) -> tuple[Batches, Batches]:
    """Batches as they come, and batches of pairs of similar length.

    Both are drawn from one pool of ``POOL_BATCHES`` batches: the first ones as they come, and of those made
    after sorting the pool by length evenly spaced ones, short to long.
    """
    rows = random_rows(workload, vocabulary, pairs * max(POOL_BATCHES, n_batches), seed)
    ordered = sorted(rows, key=longest)
    cut = [ordered[start : start + pairs] for start in range(0, len(ordered), pairs)]
    taken = [cut[int((place + 0.5) * len(cut) / n_batches)] for place in range(n_batches)]
    return [rows[start : start + pairs] for start in range(0, pairs * n_batches, pairs)], taken


def longest(row: Row) -> int:
    """Tokens of the prompt with the longer completion."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def needed_flops(shape: Shape, rows: Sequence[Row]) -> float:
    """FLOPs of forward and backward without padding, prompt once: what a step cannot do without.

    6 x body x (prompt + both completions) + 6 x head x completion tokens + causal attention, each query with
    the keys it sees, 4 FLOPs a pair and channel forward and 8 backward.
    """
    total = 0.0
    for row in rows:
        prompt = len(row["prompt_ids"])
        completions = [len(row["chosen_ids"]), len(row["rejected_ids"])]
        seen = _triangle(prompt) + sum(n * prompt + _triangle(n) for n in completions)
        total += 6 * shape.body * (prompt + sum(completions)) + 6 * shape.head * sum(completions)
        total += 12 * shape.layers * shape.hidden * seen
    return total


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
