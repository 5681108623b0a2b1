"""Sides of a comparison: each takes a training step on the same batches, in turn, in one process."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.gemm import synchronize
from benchmarks.malloc import as_glibc_has_it
from benchmarks.table import greatest


@dataclass(frozen=True)
class Side:
    """One way to take a step.

    Attributes:
        name: for the table.
        model: what gets the gradients.
        step: number of a batch -> its loss, after forward and backward.
        keeps: freed memory is kept for the next step, as our stages do; False for glibc as it is (on a CPU).
    """

    name: str
    model: Any
    step: Callable[[int], Tensor]
    keeps: bool = True

    def gradients(self) -> list[Tensor]:
        """Those of the last step, which the model then forgets."""
        found = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad(set_to_none=True)
        return found


@dataclass
class Found:
    """What a side did: seconds and losses by batch; its greatest distance from the first side."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_gap: float = 0.0
    gradient_gap: float = 0.0

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)

    def times(self, other: "Found") -> float:
        """How many times as long this side takes as another: the median over batches of the ratio."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def compare(sides: Sequence[Side], n_batches: int, device: str = "cpu") -> Mapping[str, Found]:
    """Takes the steps of all sides batch by batch, after one that is not counted.

    Args:
        sides: those that others are compared with stand first; all have the same weights.
        n_batches: numbers of batches run from 0.
        device: ``cpu`` or ``cuda``.
    """
    found = {side.name: Found() for side in sides}
    for side in sides:
        side.step(0)
        side.gradients()
    for number in range(n_batches):
        first: list[Tensor] = []
        cold = False  # a side before gave all memory back
        for side in sides:
            entry = found[side.name]
            if cold and side.keeps:
                side.step(number)
                side.gradients()
            cold = not side.keeps and device == "cpu"
            with as_glibc_has_it() if cold else nullcontext():
                synchronize(device)
                started = time.perf_counter()
                loss = side.step(number)
                synchronize(device)
                entry.seconds.append(time.perf_counter() - started)
            entry.losses.append(float(loss))
            gradients = side.gradients()
            first = first or gradients
            expected = found[sides[0].name].losses[-1]
            entry.loss_gap = greatest((entry.loss_gap, abs(entry.losses[-1] - expected)))
            entry.gradient_gap = greatest((entry.gradient_gap, _distance(gradients, first)))
    return found


def trainer_side(name: str, trainer: Any, batches: Sequence[Mapping[str, Tensor]]) -> Side:
    """The steps of a trainer of transformers, as its own loop calls them; collating is not timed.

    Args:
        name: for the table.
        trainer: not yet used; checkpointing and autocast as its arguments say.
        batches: what its collator made.
    """
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable()
    model = trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model)
    trainer.current_gradient_accumulation_steps = 1

    def step(number: int) -> Tensor:
        samples, items = trainer.get_batch_samples(iter([dict(batches[number])]), 1, trainer.args.device)
        loss: Tensor = trainer.training_step(model, samples[0], items)
        return loss

    return Side(name, trainer.model, step)


def _distance(gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    if len(gradients) != len(expected):
        raise RuntimeError(
            f"{len(gradients)} gradients against {len(expected)}: the sides train other weights"
        )
    pairs = list(zip(gradients, expected, strict=True))
    gap: float = sum((a.float() - b.float()).square().sum().item() for a, b in pairs)
    expected_norm: float = sum(b.float().square().sum().item() for _, b in pairs) ** 0.5
    return math.sqrt(gap) / expected_norm
