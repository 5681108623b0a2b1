"""Supervised fine-tuning with TRL's trainer, on prepared token ids; only completion tokens count."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from po.logps import attach_engine, completion_logps
from po.rows import Row


class CompletionSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss computed by the log-prob engine: the head on completion tokens only.

    With ``token_batch`` the loss is TRL's: the mean over the completion tokens of the whole step. On a CPU
    TRL runs the head on every position and computes entropies for its log, a third of a small model's step.

    Args:
        nll_reduction: over what the mean is taken; as in the method table.
    """

    def __init__(self, *args: Any, nll_reduction: str = "token_batch", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nll_reduction = nll_reduction
        self._step_rows = 0.0

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[Any, Any]:
        """The micro-batches of an optimizer step, after counting their rows over all processes."""
        samples, n_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = torch.tensor(float(sum(len(batch["labels"]) for batch in samples)), device=device)
        self._step_rows = float(self.accelerator.reduce(rows, reduction="sum"))
        return samples, n_tokens

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share in the step's mean loss; evaluation is left to TRL."""
        if return_outputs or num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mask = inputs["labels"] != -100
        sums, lengths = completion_logps(model, inputs["input_ids"], inputs["attention_mask"], mask)
        if self.nll_reduction == "token_batch":
            loss = -sums.sum() / num_items_in_batch
        else:
            loss = -(sums / lengths if self.nll_reduction == "seq_mean" else sums).sum() / self._step_rows
        # gradients are averaged over processes, and the denominators count all of them
        return loss * self.accelerator.num_processes


def sft_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    arguments: dict[str, Any],
    callbacks: list[Any],
    nll_reduction: str = "token_batch",
) -> CompletionSFTTrainer:
    """A trainer for rows with ``prompt_ids`` and ``completion_ids``.

    Args:
        model: a causal language model.
        tokenizer: gives the padding token and is saved with the checkpoints.
        rows: prepared rows.
        arguments: keyword arguments of transformers.TrainingArguments.
        callbacks: of transformers.
        nll_reduction: as in the method table.
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
    config = SFTConfig(
        **arguments, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, packing=False
    )
    attach_engine(model)
    return CompletionSFTTrainer(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=callbacks,
        nll_reduction=nll_reduction,
    )
