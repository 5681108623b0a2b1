"""Training steps of TRL's trainers on the benchmarks' pairs; needs TRL and datasets."""

import copy
import tempfile
from collections.abc import Mapping
from typing import Any

import datasets
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from benchmarks.our_steps import PARAMS, common_arguments
from benchmarks.sides import Side, trainer_side
from benchmarks.workloads import Batches, Row, texts_of, word_tokenizer

datasets.disable_progress_bars()


def trl_dpo(
    name: str, model: Any, reference: Any, batches: Batches, *, precompute: bool, checkpointing: bool
) -> Side:
    """A side that takes steps of ``DPOTrainer`` in float32.

    Args:
        name: for the table.
        model: the policy; it is copied.
        reference: copied; asked in every step unless ``precompute``.
        batches: rows of token ids.
        precompute: reference log-probabilities are computed before the first step.
        checkpointing: of gradients, on by default in TRL.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=copy.deepcopy(model),
            ref_model=copy.deepcopy(reference),
            args=DPOConfig(
                **_arguments(folder, model, checkpointing),
                precompute_ref_log_probs=precompute,
                beta=PARAMS["dpo"]["beta"],
            ),
            train_dataset=_texts(batches),
            processing_class=word_tokenizer(model.config.vocab_size),
        )
    return _side(name, trainer, batches, _dpo_ids)


def trl_simpo(name: str, model: Any, batches: Batches, *, checkpointing: bool) -> Side:
    """A side that takes steps of ``CPOTrainer`` with SimPO's loss and no likelihood term, in float32."""
    params = PARAMS["simpo"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = CPOTrainer(
            model=copy.deepcopy(model),
            args=CPOConfig(
                **_arguments(folder, model, checkpointing),
                loss_type="simpo",
                cpo_alpha=params["nll_weight"],
                beta=params["beta"],
                simpo_gamma=params["gamma"],
            ),
            train_dataset=_texts(batches),
            processing_class=word_tokenizer(model.config.vocab_size),
        )
    return _side(name, trainer, batches, _cpo_ids)


def _arguments(folder: str, model: Any, checkpointing: bool) -> dict[str, Any]:
    return common_arguments(folder, model) | {"bf16": False, "gradient_checkpointing": checkpointing}


def _texts(batches: Batches) -> Dataset:
    return Dataset.from_list([texts_of(row) for batch in batches for row in batch])


def _side(name: str, trainer: Any, batches: Batches, ids: Any) -> Side:
    """Batches of the trainer's own rows by its own collator, after a check that they are ours."""
    rows, given = list(trainer.train_dataset), iter(trainer.train_dataset)
    expected = [row for batch in batches for row in batch]
    for row, ours in zip(rows, expected, strict=True):
        if ids(row) != {key: ours[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")}:
            raise RuntimeError(f"{name}: TRL made other tokens of the texts")
    found = [dict(trainer.data_collator([next(given) for _ in batch])) for batch in batches]
    return trainer_side(name, trainer, found)


def _dpo_ids(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")}


def _cpo_ids(row: Mapping[str, Any]) -> Row:
    start = len(row["prompt_input_ids"])
    completions = {f"{side}_ids": row[f"{side}_input_ids"][start:] for side in ("chosen", "rejected")}
    return {"prompt_ids": row["prompt_input_ids"], **completions}
