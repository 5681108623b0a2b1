"""cell.json -> what training needs to know, checked and frozen."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from po.methods import METHODS, Method


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the optimizer and its schedule; units: steps are optimizer steps, batch sizes count pairs (or rows)."""

    epochs: float
    max_steps: int | None
    global_batch_size: int
    per_device_batch_size: int
    learning_rate: float
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    precision: str
    disable_dropout: bool
    gradient_checkpointing: bool
    logging_steps: int
    save_steps: int
    retain: str


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One cell, as its training sees it.

    Attributes:
        folder: the cell's folder.
        root: the experiment's folder, which the cell's paths are relative to.
        method: None for a cell that is measured as it is.
    """

    folder: Path
    root: Path
    name: str
    stage_hash: str
    seed: int
    model: Mapping[str, Any]
    method: Method | None
    params: Mapping[str, Any]
    training: TrainingSettings | None
    corpus: Path
    parent: Path | None
    data: Path | None
    reference: Path | None


def read_settings(folder: Path) -> TrainSettings:
    """The settings of a cell.

    Raises:
        FileNotFoundError: the folder has no cell.json.
        ValueError: an unknown or missing key, an unknown method.
    """
    path = folder / "cell.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; cells are made by: python -m experiments.run MANIFEST")
    cell = json.loads(path.read_text(encoding="utf-8"))
    root, train = folder.resolve().parents[1], cell["train"]
    return TrainSettings(
        folder=folder.resolve(),
        root=root,
        name=cell["name"],
        stage_hash=cell["hashes"]["train"],
        seed=cell["seed"],
        model=cell["model"],
        method=METHODS[train["method"]] if train else None,
        params=train["params"] if train else {},
        training=_training(train["training"], path) if train else None,
        corpus=root / cell["corpus"],
        parent=root / cell["parent"] if cell["parent"] else None,
        data=root / train["data"] if train else None,
        reference=root / cell["reference"] if cell["reference"] else None,
    )


def _training(values: Mapping[str, Any], path: Path) -> TrainingSettings:
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    wrong = sorted(set(values) ^ known)
    if wrong:
        raise ValueError(f"{path}: train.training has unknown or missing keys: {', '.join(wrong)}; run experiments.run again, it writes the file anew")
    return TrainingSettings(**values)
