"""What the grid benchmark trains: a model of random weights, pairs of random words, eight methods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workloads import (
    PAIRS_A_BATCH,
    Row,
    Shape,
    Workload,
    longest,
    random_rows,
    texts_of,
    word_tokenizer,
)

SEED, LEARNING_RATE = 1, 1e-4


@dataclass(frozen=True)
class Contender:
    """A method under both names.

    Attributes:
        name: ours.
        params: our hyperparameters.
        trainer: TRL's trainer, ``dpo`` (with a reference), ``cpo`` or ``orpo``.
        options: of TRL's configuration.
    """

    name: str
    params: Mapping[str, Any]
    trainer: str
    options: Mapping[str, Any]


_SMOOTH = {"loss_type": ["robust"], "beta": 0.1, "label_smoothing": 0.1}
_SIMPO = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0}
CONTENDERS = (
    Contender("dpo", {"beta": 0.1}, "dpo", {"loss_type": ["sigmoid"], "beta": 0.1}),
    Contender("ipo", {"tau": 0.5}, "dpo", {"loss_type": ["ipo"], "beta": 0.5}),
    Contender("slic_dpo", {"beta": 0.1}, "dpo", {"loss_type": ["hinge"], "beta": 0.1}),
    Contender("robust_dpo", {"beta": 0.1, "eps": 0.1}, "dpo", _SMOOTH),
    Contender("simpo", {"beta": 2.0, "gamma": 0.5}, "cpo", _SIMPO),
    Contender("cpo", {"beta": 0.1, "nll_weight": 1.0}, "cpo", {"loss_type": "sigmoid", "beta": 0.1}),
    Contender("slic", {"beta": 0.1, "nll_weight": 1.0}, "cpo", {"loss_type": "hinge", "beta": 0.1}),
    Contender("orpo", {"odds_weight": 0.1, "nll_scope": "prompt_and_completion"}, "orpo", {"beta": 0.1}),
)
"""Four with a reference, four without; all that decides a loss is spelled out."""


@dataclass(frozen=True)
class Work:
    """Files that all sides read.

    Attributes:
        folder: holds them, and takes what is written.
        model: folder of weights and tokenizer.
        rows: pairs as texts, JSONL, in the order in which they were drawn.
        sorted_rows: the same pairs by length.
        n_steps: optimizer steps of one training.
        contenders: what is trained.
    """

    folder: Path
    model: Path
    rows: Path
    sorted_rows: Path
    n_steps: int
    contenders: Sequence[Contender] = CONTENDERS


def write_work(
    folder: Path,
    shape: Shape,
    workload: Workload,
    n_pairs: int,
    contenders: Sequence[Contender] = CONTENDERS,
) -> Work:
    """Makes a model and pairs; a token is a word, and no token is put before a text.

    Raises:
        ValueError: the pairs do not fill their batches.
    """
    if n_pairs <= 0 or n_pairs % PAIRS_A_BATCH:
        raise ValueError(f"{n_pairs} pairs are no whole batches of {PAIRS_A_BATCH}")
    steps = n_pairs // PAIRS_A_BATCH
    rows_at, sorted_at = folder / "pairs.jsonl", folder / "by-length.jsonl"
    work = Work(folder, folder / "model", rows_at, sorted_at, steps, contenders)
    shape.build(SEED).save_pretrained(work.model)
    word_tokenizer(shape.vocabulary).save_pretrained(work.model)
    rows = random_rows(workload, shape.vocabulary, n_pairs, SEED)
    _write(work.rows, rows)
    _write(work.sorted_rows, sorted(rows, key=longest))
    return work


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(texts_of(row)) + "\n" for row in rows), encoding="utf-8")


def write_manifest(work: Work, cpus: int) -> Path:
    """The study of all methods, each from the same weights; ``cpus`` is what one training gets.

    The test set, which every study has, is not prepared: only the trainings are run.
    """
    pairs = {"dataset": str(work.rows)}
    task = {
        "type": "summarization",
        "train": {**pairs, "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
        "tests": {"test": {**pairs, "columns": {"source": "prompt", "reference": "chosen"}}},
        "prompt": "{{ source }}",
        "max_prompt_length": 1024,
        "max_completion_length": 1024,
        "metrics": ["chrf"],
    }
    training = {
        "epochs": 1,
        "global_batch_size": PAIRS_A_BATCH,
        "per_device_batch_size": PAIRS_A_BATCH,
        "learning_rate": LEARNING_RATE,
        "scheduler": "linear",
        "warmup_ratio": 0.0,
        "logging_steps": 1,
    }
    study = {
        "version": 1,
        "name": "grid",
        "models": {"random": {"id": str(work.model)}},
        "tasks": {"words": task},
        "methods": {each.name: {"params": dict(each.params)} for each in work.contenders},
        "seeds": [SEED],
        "training": training,
        "resources": {"default": {"cpus": cpus}},
        "report": {"baseline": work.contenders[0].name},
    }
    path = work.folder / "grid.yaml"
    path.write_text(json.dumps(study), encoding="utf-8")  # JSON is YAML
    return path


def trl_settings() -> dict[str, Any]:
    """What TRL's trainings share with ours; all else is as TRL has it."""
    return {
        "per_device_train_batch_size": PAIRS_A_BATCH,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "seed": SEED,
        "data_seed": SEED,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
