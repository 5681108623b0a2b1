"""Train one cell.

    python -m po.train runs/demo/cells/tiny.numbers.dpo.s1--0123456789
    accelerate launch -m po.train CELL_FOLDER

Reads   CELL_FOLDER/cell.json, the prepared data, the parent's model and the reference log-probabilities that it names
Writes  CELL_FOLDER/model/, train_log.jsonl, train.json and, last, model.json; checkpoints below attempts/ until then
Exit    0 trained or already trained, 85 stopped after SIGTERM at a step boundary (run again to go on), 65 bad data or settings
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from po.models import POINTER
from po.settings import TrainSettings, read_settings

BAD_INPUT = 65


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CELL_FOLDER")
    folder = parser.parse_args(argv).folder
    try:
        settings = read_settings(folder)
        if is_trained(settings):
            return 0
        return train(settings)
    except (ValueError, FileNotFoundError) as error:
        import traceback

        traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 the command's own message
        return BAD_INPUT


def is_trained(settings: TrainSettings) -> bool:
    """Whether the folder holds the finished result of these very settings."""
    result = settings.folder / "train.json"
    if not (settings.folder / POINTER).is_file() or not result.is_file():
        return False
    return bool(json.loads(result.read_text(encoding="utf-8"))["stage_hash"] == settings.stage_hash)


def train(settings: TrainSettings) -> int:
    """Trains a cell and publishes its model; returns the exit code."""
    from po.checkpoint import INTERRUPTED, AttemptCallback, newest_checkpoint, publish
    from po.models import load_tokenizer

    if settings.method is None:
        return _publish_untrained(settings)
    started = time.time()
    callback = AttemptCallback(settings.folder, settings.stage_hash)
    checkpoint = newest_checkpoint(settings.folder, settings.stage_hash)
    attempt = _shared_attempt(settings.folder)
    tokenizer = load_tokenizer(settings.corpus)
    trainer = make_trainer(settings, tokenizer, attempt, [callback])
    callback.listen()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.interrupted:
        return INTERRUPTED
    trainer.save_model(str(attempt / "model"))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(attempt / "model")
        result = _result(settings, trainer, time.time() - started, resumed=checkpoint is not None)
        assert settings.training is not None
        publish(attempt, settings.folder, result, trainer.state.log_history, keep_attempts=settings.training.retain == "all")
    return 0


def _shared_attempt(folder: Path) -> Path:
    """A new attempt's folder, the same in every process of a distributed run."""
    from po.checkpoint import new_attempt

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return new_attempt(folder)
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=not torch.cuda.is_available())
    names = [str(new_attempt(folder)) if state.is_main_process else ""]
    return Path(broadcast_object_list(names)[0])


def make_trainer(settings: TrainSettings, tokenizer: Any, output: Path, callbacks: list[Any]) -> Any:
    """The trainer of a cell: TRL's for supervised fine-tuning, ours for preferences.

    Raises:
        ValueError: no training rows, or reference values of other pairs or weights.
    """
    from po.models import disable_dropout
    from po.rows import read_rows

    assert settings.method is not None and settings.training is not None and settings.data is not None
    rows = read_rows(settings.data)
    if not rows:
        raise ValueError(f"{settings.data} has no rows; loosen what is filtered out (pairs.min_gap, the length limits)")
    model = start_model(settings, tokenizer)
    if settings.training.disable_dropout:
        disable_dropout(model)
    arguments = _arguments(settings, output, len(rows))
    if not settings.method.paired:
        from po.sft import sft_trainer

        return sft_trainer(model, tokenizer, rows, arguments, callbacks)
    return _preference_trainer(settings, model, tokenizer, rows, arguments, callbacks)


def _preference_trainer(settings: TrainSettings, model: Any, tokenizer: Any, rows: list[Any], arguments: Any, callbacks: list[Any]) -> Any:
    from transformers import TrainingArguments

    from po.collate import PairCollator
    from po.reference import compute, load_reference
    from po.trainer import PreferenceTrainer

    assert settings.method is not None
    if settings.reference is not None:
        compute(settings.reference)
        values = load_reference(settings.reference, rows, model)
        rows = [row | {"reference_chosen": float(c), "reference_rejected": float(r)} for row, (c, r) in zip(rows, values, strict=True)]
    return PreferenceTrainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=rows,
        data_collator=PairCollator(tokenizer.pad_token_id, settings.method.inputs),
        processing_class=tokenizer,
        callbacks=callbacks,
        method=settings.method,
        params=settings.params,
    )


def start_model(settings: TrainSettings, tokenizer: Any) -> Any:
    """The model before its first step: the parent's, the hub's, or a new one."""
    from po.models import build_model, load_model, model_location

    if settings.parent is not None:
        location, revision = model_location(settings.parent)
        return load_model(location, settings.model, revision)
    if settings.model["from_scratch"]:
        return build_model(settings.model, tokenizer, settings.seed)
    return load_model(settings.model["id"], settings.model, settings.model["revision"])


def _arguments(settings: TrainSettings, output: Path, n_rows: int) -> dict[str, Any]:
    """Keyword arguments of transformers.TrainingArguments; the global batch is kept whatever the number of processes."""
    import torch

    training = settings.training
    assert training is not None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    per_step = training.per_device_batch_size * world
    if training.global_batch_size % per_step:
        raise ValueError(f"global_batch_size {training.global_batch_size} is not divisible by {world} processes x {training.per_device_batch_size} a device")
    steps = training.max_steps or max(1, round(training.epochs * -(-n_rows // training.global_batch_size)))
    return {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": training.per_device_batch_size,
        "gradient_accumulation_steps": training.global_batch_size // per_step,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "warmup_steps": round(training.warmup_ratio * steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "bf16": training.precision == "bf16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        "save_steps": training.save_steps,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _result(settings: TrainSettings, trainer: Any, seconds: float, *, resumed: bool) -> dict[str, Any]:
    import torch

    packages = ("torch", "transformers", "trl", "accelerate")
    return {
        "schema": 1,
        "stage_hash": settings.stage_hash,
        "method": settings.method.name if settings.method else None,
        "steps": trainer.state.global_step,
        "rows": len(trainer.train_dataset),
        "seconds": round(seconds, 3),
        "resumed": resumed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _publish_untrained(settings: TrainSettings) -> int:
    """A cell that is measured as it is: a pointer to the hub, or the weights that training would start from."""
    from po.models import load_tokenizer, write_json

    result = {"schema": 1, "stage_hash": settings.stage_hash, "method": None, "steps": 0, "seconds": 0.0}
    pointer: dict[str, Any] = {"id": settings.model["id"], "revision": settings.model["revision"]}
    if settings.model["from_scratch"]:
        tokenizer = load_tokenizer(settings.corpus)
        model = start_model(settings, tokenizer)
        model.save_pretrained(settings.folder / "model")
        tokenizer.save_pretrained(settings.folder / "model")
        pointer = {"path": "model"}
    write_json(settings.folder / "train.json", result)
    write_json(settings.folder / POINTER, pointer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
