"""Training steps of this project on the benchmarks' pairs."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from benchmarks.sides import Side, trainer_side
from benchmarks.workloads import Batches, Row
from po.methods import METHODS
from po.references.cell import live_reference
from po.references.sources import StoredReference
from po.references.values import reference_values, with_values
from po.training.collate import Collator
from po.training.trainer import MethodTrainer

PARAMS: Mapping[str, Mapping[str, float]] = {
    "dpo": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 0.5, "nll_weight": 0.0},
}
NOISE = 0.5  # of a weight's spread: the policy has left the reference far enough for losses to differ


def reference_of(policy: Any, seed: int = 1) -> Any:
    """A frozen copy of the policy with a little noise on its weights."""
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.dim() > 1:
                noise = torch.empty_like(parameter).normal_(generator=generator)
                parameter.add_(noise, alpha=NOISE * float(parameter.std()))
    return reference


def with_reference(batches: Batches, reference: Any) -> Batches:
    """The batches with the reference's log-probabilities in their rows."""
    rows = [row for batch in batches for row in batch]
    found = with_values(rows, reference_values(copy.deepcopy(reference), rows, "fp32"))
    sizes = iter(found)
    return [[next(sizes) for _ in batch] for batch in batches]


def collated(batches: Batches, method: str) -> list[dict[str, Any]]:
    """What our trainer gets."""
    entry = METHODS[method]
    collator = Collator.of(entry, entry.check_params(PARAMS[method]))
    return [collator(batch) for batch in batches]


def our_side(
    name: str,
    model: Any,
    batches: Batches,
    method: str,
    *,
    live: Any = None,
    arguments: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Side:
    """A side that takes steps of ``MethodTrainer``.

    Args:
        name: for the table.
        model: the policy; it is copied.
        batches: rows, with stored values where the method needs a reference and ``live`` is None.
        method: of the table of methods.
        live: a reference that is asked in every step; it is copied.
        arguments: more of ``TrainingArguments``.
        options: more of ``MethodTrainer``.
    """
    entry, model = METHODS[method], copy.deepcopy(model)
    reference = None
    if entry.needs_reference:
        reference = StoredReference() if live is None else live_reference(entry, model, copy.deepcopy(live))
    rows: Sequence[Row] = [row for batch in batches for row in batch]
    with tempfile.TemporaryDirectory() as folder:
        trainer = MethodTrainer(
            model=model,
            args=TrainingArguments(**common_arguments(folder, model), **(arguments or {})),
            train_dataset=rows,
            method=entry,
            params=entry.check_params(PARAMS[method]),
            reference=reference,
            **(options or {}),
        )
    return trainer_side(name, trainer, collated(batches, method))


def common_arguments(folder: str, model: Any) -> dict[str, Any]:
    """Arguments that all trainers of a comparison share."""
    return {
        "output_dir": folder,
        "use_cpu": model.device.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
