"""A supervised step: our completion-only loss in length groups against TRL's, same model and batch, in turn.

python -m benchmarks.sft_step

Beyond 1e-4 of loss or gradient the exit status is 1.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from trl import SFTConfig, SFTTrainer

from benchmarks.table import Row, equal_within, plain, run
from benchmarks.workloads import FIRST_WORD, word_tokenizer
from experiments.memory import keep_freed_memory
from po.methods import METHODS
from po.training.collate import Collator
from po.training.trainer import MethodTrainer

STEPS, ROWS, VOCABULARY = 7, 64, 5000
TOLERANCE = 1e-4  # of the loss, and of the gradient relative to its norm


def _rows(chance: random.Random) -> list[dict[str, Any]]:
    """Prompt and completion of about 17 tokens each, as in image captions."""

    def ids() -> list[int]:
        return [
            chance.randrange(FIRST_WORD, VOCABULARY)
            for _ in range(max(4, round(chance.lognormvariate(2.8, 0.4))))
        ]

    return [{"prompt_ids": ids(), "completion_ids": ids()} for _ in range(ROWS)]


def _arguments(folder: str) -> dict[str, Any]:
    cpu = not torch.cuda.is_available()
    return {"output_dir": folder, "use_cpu": cpu, "bf16": False, "report_to": "none"}


def _our_step(model: Any, rows: list[dict[str, Any]], folder: str) -> Callable[[], torch.Tensor]:
    sft = METHODS["sft"]
    params = sft.check_params({})
    arguments = TrainingArguments(**_arguments(folder))
    trainer = MethodTrainer(model=model, args=arguments, method=sft, params=params, train_dataset=rows)
    batch = Collator.of(sft, params)(rows)
    # a step of one micro-batch is what the trainer counts before it
    trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    return lambda: trainer.compute_loss(model, dict(batch))


def _trl_step(model: Any, rows: list[dict[str, Any]], folder: str) -> Callable[[], torch.Tensor]:
    data = [
        {
            "input_ids": [*row["prompt_ids"], *row["completion_ids"]],
            "labels": [-100] * len(row["prompt_ids"]) + row["completion_ids"],
        }
        for row in rows
    ]
    config = SFTConfig(
        **_arguments(folder),
        gradient_checkpointing=False,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(data),
        processing_class=word_tokenizer(VOCABULARY),  # asked for; nothing is tokenized here
    )
    batch = dict(trainer.data_collator(data))
    count = (batch["labels"][:, 1:] != -100).sum()
    return lambda: trainer.compute_loss(model, dict(batch), num_items_in_batch=count)


def measure() -> list[Row]:
    """Median seconds of forward and backward, their ratio, and how far loss and gradient differ."""
    keep_freed_memory()
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 5, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **shape))
    model.train()
    rows = _rows(random.Random(0))
    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    found: dict[str, tuple[float, torch.Tensor]] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps = {"ours": _our_step(model, rows, folder), "trl": _trl_step(model, rows, folder)}
    for _ in range(STEPS):
        for name, step in steps.items():
            model.zero_grad()
            started = time.perf_counter()
            loss = step()
            loss.backward()
            seconds[name].append(time.perf_counter() - started)
            gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            found[name] = (loss.item(), gradient.clone())
    ours, peer = (statistics.median(seconds[name][1:]) for name in ("ours", "trl"))
    gap = float((found["ours"][1] - found["trl"][1]).norm() / found["trl"][1].norm())
    return [
        plain("SFT step, TRL, seconds", f"{peer:.3f}"),
        plain("SFT step, ours, seconds", f"{ours:.3f}"),
        plain("SFT step, TRL / ours", f"{peer / ours:.2f}"),
        equal_within("SFT step, loss difference", abs(found["ours"][0] - found["trl"][0]), TOLERANCE),
        equal_within("SFT step, gradient difference, relative", gap, TOLERANCE),
    ]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
