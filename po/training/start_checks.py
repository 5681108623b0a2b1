"""Checks at the start: the model can do what is asked, it agrees with its reference, a step changes it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.engine.token_values import Asked
from po.faults import InputFault
from po.methods.method import Method
from po.models.loading import drops_out
from po.models.quantize import is_quantized
from po.models.sharding import is_sharded
from po.rows import Row

_NATS_A_TOKEN = {"fp32": 1e-3, "bf16": 0.1}
_LEAST_SHARE = 0.5  # of the weights that have a gradient


def check_scope(asked: Asked, model: Any) -> None:
    """Refuses a likelihood that counts prompt tokens where a decoder never sees a prompt.

    Raises:
        InputFault: the model is an encoder-decoder, and ``nll_scope`` is not ``completion``.
    """
    if asked.prompt and model.config.is_encoder_decoder:
        raise InputFault(
            "an encoder-decoder model predicts no prompt tokens; set nll_scope to 'completion' instead of "
            "'prompt_and_completion'"
        )


def check_classes(method: Method, params: Mapping[str, Any], rows: Sequence[Row], micro_batch: int) -> None:
    """Looks at the labels of single completions before training.

    Args:
        method: that learns from them.
        params: its hyperparameters.
        rows: of token ids; pairs have one completion of each kind and are always right.
        micro_batch: rows that the loss sees together.

    Raises:
        InputFault: the method compares the two kinds within a micro-batch of one.
    """
    labels = [row["desirable"] for row in rows if "desirable" in row]
    if not labels:
        return
    if method.both_classes and micro_batch == 1:
        raise InputFault(
            f"{method.name} compares wanted and unwanted completions of one micro-batch, and "
            "per_device_batch_size is 1; raise it, so that most micro-batches have both"
        )
    wanted, unwanted = sum(labels), len(labels) - sum(labels)
    if "desirable_weight" in params and wanted and unwanted:
        weights = float(params["desirable_weight"]), float(params["undesirable_weight"]) or 1.0
        ratio = weights[0] * wanted / (weights[1] * unwanted)
        if not 1 <= ratio <= 4 / 3:
            warnings.warn(
                f"{method.name}: {wanted} wanted and {unwanted} unwanted completions with these weights give "
                f"{ratio:.2f}:1; 1:1 to 4:3 is advised, by desirable_weight and undesirable_weight",
                stacklevel=2,
            )


def check_agreement(
    policy: Tensor, reference: Tensor, lengths: Tensor, model: nn.Module, *, bf16: bool
) -> None:
    """Refuses a start at which policy and reference, which are to be one model, disagree.

    Not checked for a model that drops out: its answers differ from one call to the next.

    Args:
        policy: summed log-probabilities of the first micro-batch, (rows,).
        reference: the same under the reference.
        lengths: tokens of the completions, (rows,).
        model: the policy.
        bf16: it runs, or is stored, in bfloat16.

    Raises:
        InputFault: they differ by more than rounding explains.
    """
    if drops_out(model):
        return
    gap = ((policy - reference).abs() / lengths).max().item()
    # 8-bit layers treat columns with outliers apart, so that a row's values depend on the others of its batch
    if not gap <= _NATS_A_TOKEN["bf16" if bf16 or is_quantized(model) else "fp32"]:
        raise InputFault(
            f"before the first step policy and reference differ by {gap:.3g} nats per token, but they should "
            "be one model; check that the reference's values are of this model, data and precision"
        )


class FirstStepChanges(TrainerCallback):  # type: ignore[misc]
    """Watches the first step whose learning rate is not 0: it must change weights.

    In pure bfloat16 a small learning rate can round every change away, and nothing would be learnt; where it
    rounds most of them away there is a warning. One parameter is watched, that with the largest gradient.
    """

    def __init__(self) -> None:
        self._watched: Tensor | None = None
        self._before: Tensor | None = None
        self._slopes = 0
        self._done = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keeps a copy of what is to change."""
        if self._done or max(group["lr"] for group in kwargs["optimizer"].param_groups) == 0:
            return
        trained = [parameter for parameter in kwargs["model"].parameters() if parameter.requires_grad]
        if not trained:
            return
        slopes = self._slopes_of(trained, agreed=is_sharded(kwargs["model"]))
        place = int(slopes.argmax())
        largest, self._watched = float(slopes[place]), trained[place]
        if largest < 0:  # no parameter has a gradient
            self._watched = None
            return
        if largest == 0:
            warnings.warn("the first step has no gradient: all is past the loss's margin", stacklevel=2)
            self._done = True
        else:
            self._before = self._watched.detach().clone()
            if self._rounds(self._watched) and self._watched.grad is not None:
                self._slopes = int(self._watched.grad.count_nonzero())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compares.

        Raises:
            InputFault: nothing has changed.
        """
        if self._done or self._before is None or self._watched is None:
            return
        self._done = True
        before, self._before = self._before, None
        rate = max(group["lr"] for group in kwargs["optimizer"].param_groups)
        if torch.equal(before, self._watched.detach()):
            raise InputFault(
                f"the first step changed no weights: a learning rate of {rate:.3g} is lost in "
                f"{self._watched.dtype} rounding; raise it, or keep the model in float32 (precision: bf16 "
                "still computes in bfloat16)"
            )
        if self._slopes:
            share = int((before != self._watched.detach()).sum()) / self._slopes
            if share < _LEAST_SHARE:
                warnings.warn(
                    f"the first step changed {share:.0%} of the weights of a matrix: at a learning rate of "
                    f"{rate:.3g} the rest is lost in {self._watched.dtype} rounding; keep the model in "
                    "float32 (precision: bf16 still computes in bfloat16)",
                    stacklevel=2,
                )

    @staticmethod
    def _slopes_of(trained: Sequence[Tensor], *, agreed: bool) -> Tensor:
        """The largest slope of each parameter, in main memory; -1 where it has no gradient.

        Args:
            trained: the parameters.
            agreed: over all processes, each of which asks: where weights are spread over them, a process has
                a part of a gradient, or nothing of it.
        """
        found = torch.stack([_largest(parameter).to(trained[0].device) for parameter in trained])
        if agreed:
            found = found.to(PartialState().device)  # where weights are offloaded, theirs may have no group
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return found.cpu()

    @staticmethod
    def _rounds(weights: Tensor) -> bool:
        """Whether changes may be lost; not looked at where weights are spread over processes."""
        return weights.dtype in (torch.bfloat16, torch.float16) and not isinstance(weights, DTensor)


@torch.no_grad()
def _largest(parameter: Tensor) -> Tensor:
    """The largest slope of what this process has of a parameter; 0 if that is nothing, -1 without one."""
    slopes = parameter.grad
    if slopes is None:
        return torch.tensor(-1.0, device=parameter.device)
    if isinstance(slopes, DTensor):
        slopes = slopes.to_local()
    if not slopes.numel():
        return torch.tensor(0.0, device=slopes.device)
    largest: Tensor = torch.linalg.vector_norm(slopes, float("inf"))  # abs() would copy the gradient
    return largest.float()
