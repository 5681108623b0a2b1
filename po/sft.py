"""Supervised fine-tuning with TRL's trainer, on prepared token ids; the loss counts completion tokens only."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from po.rows import Row


def sft_trainer(model: Any, tokenizer: Any, rows: Sequence[Row], arguments: dict[str, Any], callbacks: list[Any]) -> Any:
    """A trainer for rows with ``prompt_ids`` and ``completion_ids``.

    Args:
        model: a causal language model.
        tokenizer: gives the padding token and is saved with the checkpoints.
        rows: prepared rows.
        arguments: keyword arguments of transformers.TrainingArguments.
        callbacks: of transformers.
    """
    data = Dataset.from_list(
        [
            {
                "input_ids": [*row["prompt_ids"], *row["completion_ids"]],
                "labels": [-100] * len(row["prompt_ids"]) + list(row["completion_ids"]),
            }
            for row in rows
        ]
    )
    config = SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, packing=False)
    return SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=callbacks)
