"""Train one cell.

    python -m po.train runs/demo/cells/tiny.numbers.dpo.s1--0123456789
    torchrun --nproc_per_node 2 -m po.train CELL_FOLDER

Reads   CELL_FOLDER/cell.json, the prepared data, the parent's model and the reference values that it names
Writes  CELL_FOLDER/model/, train_log.jsonl, train.json and, last, model.json; until then checkpoints below
        attempts/ and progress.train.json
Exit    0 trained or already trained, 65 bad data or settings, 76 taken over by another process,
        85 stopped after SIGTERM at a step boundary (run again to go on)
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from po.faults import told
from po.files import sync_tree, write_json
from po.models.loading import POINTER
from po.settings import Recipe, TrainSettings, read_settings

LONGEST_WAIT = timedelta(hours=12)
"""How long a process waits for the others before it gives up; torch's ten minutes for NCCL end it in the
middle of what the first one does alone: it computes the reference's values, waits while another job computes
them, or merges a large model. A process that ends is no matter of it: the launcher then ends the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m po.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="CELL_FOLDER")
    folder = parser.parse_args(argv).folder

    def work() -> int:
        settings = read_settings(folder)
        start = _agreed_start(settings)
        return train(settings, start) if start else 0

    return told(work)


def is_trained(settings: TrainSettings) -> bool:
    """Whether the folder holds the finished result of these very settings."""
    result = settings.folder / "train.json"
    if not (settings.folder / POINTER).is_file() or not result.is_file():
        return False
    pointer = json.loads((settings.folder / POINTER).read_text(encoding="utf-8"))
    if "path" in pointer and not (settings.folder / pointer["path"]).is_dir():
        return False
    return bool(json.loads(result.read_text(encoding="utf-8"))["stage_hash"] == settings.stage_hash)


@dataclass(frozen=True)
class Start:
    """How an attempt at a training begins.

    Attributes:
        attempt: its new folder; None where nothing is trained.
        checkpoint: from which it goes on, if there is one.
    """

    attempt: Path | None = None
    checkpoint: Path | None = None


def train(settings: TrainSettings, start: Start) -> int:
    """Trains a cell and publishes its model; returns the exit code.

    Args:
        settings: the cell.
        start: the same in every process.

    Raises:
        InputFault: data or settings that cannot be trained with.
    """
    from po.models.loading import load_tokenizer
    from po.training.cell_output import facts_of_training, save_model, write_card
    from po.training.checkpoint import INTERRUPTED, AttemptCallback, publish
    from po.training.fence import stop_if_lost

    if settings.recipe is None or start.attempt is None:
        _publish_untrained(settings)
        return 0
    started, keep = time.time(), settings.recipe.training.retain == "all"
    callback = AttemptCallback(settings.folder, settings.stage_hash, keep=keep)
    attempt, checkpoint = start.attempt, start.checkpoint
    tokenizer = load_tokenizer(settings.corpus)
    trainer = make_trainer(settings, settings.recipe, tokenizer, attempt, [callback])
    with callback.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if callback.interrupted:
            return INTERRUPTED
        save_model(settings, trainer, attempt / "model")
        if trainer.is_world_process_zero():
            tokenizer.save_pretrained(attempt / "model")
            write_card(settings, settings.recipe, trainer, attempt / "model")
            result = facts_of_training(
                settings, trainer, time.time() - started, resumed=checkpoint is not None
            )
            sync_tree(attempt / "model")
        stop_if_lost()
        if trainer.is_world_process_zero():
            publish(attempt, settings.folder, result, trainer.state.log_history, keep_attempts=keep)
    return 0


def _processes() -> Any:
    """The processes that train this cell together; usually this one alone."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def _agreed_start(settings: TrainSettings) -> Start | None:
    """What the first process has found; None where the cell is trained.

    Only that one looks: on a network file system another node may see a folder as it was a while ago, and
    would take an older checkpoint, or train what is trained.
    """
    from accelerate.utils import broadcast_object_list

    # text alone: this module may go by another name (__main__) where it is read
    found = _start(settings) if _processes().is_main_process else (False, "", "")
    trained, attempt, checkpoint = broadcast_object_list([*found])
    return None if trained else Start(*(Path(path) if path else None for path in (attempt, checkpoint)))


def _start(settings: TrainSettings) -> tuple[bool, str, str]:
    """Whether the cell is trained; if not, a new attempt's folder and a checkpoint's, empty for none."""
    from po.training.checkpoint import new_attempt, newest_checkpoint

    trained = is_trained(settings)
    if trained or settings.recipe is None:
        return trained, "", ""
    checkpoint = newest_checkpoint(settings.folder, settings.stage_hash)
    return False, str(new_attempt(settings.folder)), str(checkpoint or "")


def make_trainer(
    settings: TrainSettings, recipe: Recipe, tokenizer: Any, output: Path, callbacks: list[Any]
) -> Any:
    """The trainer of a cell.

    Args:
        settings: the cell.
        recipe: its training.
        tokenizer: the one that prepared the data.
        output: where checkpoints go.
        callbacks: of transformers.

    Raises:
        InputFault: no training rows, or reference values of other rows or weights.
    """
    from transformers import TrainingArguments

    from po.models.loading import disable_dropout
    from po.references.cell import cell_reference, completed_rows
    from po.rows import read_training_rows
    from po.training.arguments import trainer_arguments
    from po.training.collate import Collator
    from po.training.trainer import MethodTrainer

    method, training = recipe.method, recipe.training
    rows = read_training_rows(recipe.data, method.data)
    arguments = trainer_arguments(training, settings.seed, output, len(rows))
    model = start_model(settings, tokenizer)
    if training.disable_dropout:
        disable_dropout(model)
    model = _with_earlier_adapter(settings, model)
    rows = completed_rows(settings, recipe, rows, model)
    model = _with_new_adapter(settings, model)
    reference = cell_reference(settings, recipe, model, lambda: start_model(settings, tokenizer))
    return MethodTrainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=rows,
        data_collator=Collator.of(method, recipe.params, model.config.is_encoder_decoder),
        processing_class=tokenizer,
        callbacks=callbacks,
        method=method,
        params=recipe.params,
        reference=reference,
        same_start=True,
        router_aux_loss_coef=training.router_aux_loss_coef,
        speed=training.speed,
    )


def start_model(settings: TrainSettings, tokenizer: Any) -> Any:
    """The model before its first step, without adapters: the parent's, the hub's, or a new one."""
    from po.models.loading import build_model, load_model
    from po.models.start import start_of

    if settings.parent is None and settings.model["from_scratch"]:
        return build_model(settings.model, tokenizer, settings.seed)
    start = start_of(settings.model, settings.parent)
    return load_model(start.location, settings.model, start.revision)


def _with_earlier_adapter(settings: TrainSettings, model: Any) -> Any:
    """The model with the parent's adapter, where training goes on with that."""
    if not settings.model.get("adapter"):
        return model
    from po.models.start import continued, start_of

    return continued(model, start_of(settings.model, settings.parent))


def _with_new_adapter(settings: TrainSettings, model: Any) -> Any:
    """The model with a new adapter, where it is to have one and has none yet."""
    if not settings.model.get("adapter") or hasattr(model, "peft_config"):
        return model
    from po.models.adapters import with_adapter

    return with_adapter(model, settings.model["adapter"], seed=settings.seed)


def _publish_untrained(settings: TrainSettings) -> None:
    """A cell that is measured as it is: a pointer to the hub, or the weights that training starts from."""
    from po.models.loading import load_tokenizer
    from po.training.fence import stop_if_lost

    processes = _processes()
    stop_if_lost()
    if not processes.is_main_process:
        return
    pointer: dict[str, Any] = {"id": settings.model["id"], "revision": settings.model["revision"]}
    if settings.model["from_scratch"]:
        tokenizer = load_tokenizer(settings.corpus)
        start_model(settings, tokenizer).save_pretrained(settings.folder / "model")
        tokenizer.save_pretrained(settings.folder / "model")
        sync_tree(settings.folder / "model")
        pointer = {"path": "model"}
    result = {"schema": 1, "stage_hash": settings.stage_hash, "method": None, "steps": 0, "seconds": 0.0}
    write_json(settings.folder / "train.json", result)
    write_json(settings.folder / POINTER, pointer)


if __name__ == "__main__":
    sys.exit(main())
