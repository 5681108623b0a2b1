"""What a trained cell leaves behind: whole weights, a card that says how they came about, ``train.json``."""

import importlib.metadata
from pathlib import Path
from typing import Any

import torch

from po.models.merging import save_merged
from po.models.start import load_plain, start_of
from po.settings import Recipe, TrainSettings
from po.training.model_card import DataFacts, facts_of, write_model_card


def save_model(settings: TrainSettings, trainer: Any, folder: Path) -> None:
    """Writes whole weights, whatever was trained: all that follows reads those."""
    if not settings.model.get("adapter"):
        trainer.save_model(str(folder))
        return
    start = start_of(settings.model, settings.parent)
    dtype = getattr(torch, settings.model["dtype"])
    save_merged(trainer, folder, lambda: load_plain(start, settings.model), dtype)


def facts_of_training(
    settings: TrainSettings, trainer: Any, seconds: float, *, resumed: bool
) -> dict[str, Any]:
    """Content of ``train.json``; the seconds are those of the last attempt."""
    packages = ("torch", "transformers", "accelerate", "peft")
    return {
        "schema": 1,
        "stage_hash": settings.stage_hash,
        "method": settings.recipe.method.name if settings.recipe else None,
        "steps": trainer.state.global_step,
        "rows": len(trainer.train_dataset),
        "seconds": round(seconds, 3),
        "tokens": trainer.state.num_input_tokens_seen,
        "resumed": resumed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": trainer.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def write_card(settings: TrainSettings, recipe: Recipe, trainer: Any, folder: Path) -> None:
    """Writes the model's ``README.md``: method, hyperparameters, data, settings, what to cite."""
    data = DataFacts.of("training", f"{recipe.data.name} of {recipe.data.parent.name}", trainer.train_dataset)
    reference = ""
    if recipe.method.needs_reference:
        asked = (
            "asked in every step"
            if recipe.method.needs_live_reference
            else "its values stored before training"
        )
        reference = f"the model before training, {asked}"
    facts = facts_of(
        trainer, name=settings.folder.name, start=_start(settings), reference=reference, data=[data]
    )
    write_model_card(folder, facts)


def _start(settings: TrainSettings) -> str:
    if settings.parent is not None:
        return f"the cell {settings.parent.name}"
    if settings.model["from_scratch"]:
        return "random weights"
    revision = settings.model["revision"]
    return f"{settings.model['id']}{f' at {revision}' if revision else ''}"
