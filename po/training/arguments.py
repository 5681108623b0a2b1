"""A cell's settings as the keyword arguments of transformers.TrainingArguments."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from po.faults import InputFault
from po.settings import TrainingSettings


def world_size() -> int:
    """Number of processes that train this cell together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_one_device(n_gpu: int) -> None:
    """Refuses what transformers would do with several GPUs in one process: split each micro-batch among them.

    The parts of a pair would come apart.

    Args:
        n_gpu: of transformers.TrainingArguments, GPUs that one process would use.

    Raises:
        InputFault: there are several; says how to use one, or all.
    """
    if n_gpu > 1:
        raise InputFault(
            f"{n_gpu} GPUs are visible to one process, which would split each micro-batch among them; set "
            f"CUDA_VISIBLE_DEVICES to one, or start a process for each: torchrun --nproc_per_node {n_gpu} ..."
        )


def trainer_arguments(training: TrainingSettings, seed: int, output: Path, n_rows: int) -> dict[str, Any]:
    """Keyword arguments of transformers.TrainingArguments.

    Args:
        training: the cell's settings.
        seed: of the order of the rows and all else that is drawn.
        output: where checkpoints go.
        n_rows: size of the training data; with ``epochs`` it decides the number of steps.

    Raises:
        InputFault: the global batch cannot be split as it is told.
    """
    steps = training.max_steps or max(1, round(training.epochs * -(-n_rows // training.global_batch_size)))
    micro_batch = _micro_batch(training)
    return {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": training.global_batch_size // (micro_batch * world_size()),
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "warmup_steps": round(training.warmup_ratio * steps),
        "optim": "adamw_torch_fused",
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "bf16": training.precision == "bf16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        "include_num_input_tokens_seen": "non_padding",
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "save_steps": training.save_steps,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _micro_batch(training: TrainingSettings) -> int:
    """Examples that a process takes at once: the global batch is kept whatever the number of processes."""
    world, per_device = world_size(), training.per_device_batch_size
    each = 1 if per_device == "auto" else per_device
    if training.global_batch_size % (each * world):
        raise InputFault(
            f"global_batch_size {training.global_batch_size} is not divisible by {world} processes"
            + ("" if per_device == "auto" else f" x per_device_batch_size {per_device}")
        )
    return training.global_batch_size // world if per_device == "auto" else per_device
