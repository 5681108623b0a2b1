"""A reference that follows the policy (TR-DPO): its weights are state, saved with every checkpoint."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.references.sources import LiveReference

_FILE = "reference.safetensors"


class MovingReference(LiveReference):
    """A live reference whose weights can be mixed with the policy's.

    Args:
        model: as of ``LiveReference``.
        pairs: gives (weights of the reference, weights of the policy) that belong together, of one shape. It
            is asked anew each time: wrappers that shard a model put other tensors in place of its parameters.
        inside: as of ``LiveReference``.

    Raises:
        ValueError: the weights do not match.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: Callable[[], Sequence[tuple[Tensor, Tensor]]],
        inside: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        super().__init__(model, inside)
        if any(ours.shape != theirs.shape for ours, theirs in pairs()):
            raise ValueError("policy and reference have weights of other shapes and cannot be mixed")
        self._pairs = pairs

    @torch.no_grad()
    def follow(self, mix: float) -> None:
        """Mixes: mix·policy + (1 - mix)·reference, whatever the weights are sharded over."""
        for ours, theirs in self._pairs():
            with _gathered([ours, theirs]):
                weights = theirs.detach() if isinstance(ours, DTensor) else _whole(theirs)
                ours.lerp_(weights.to(ours.device, ours.dtype), mix)

    def save(self, folder: Path, *, writes: bool) -> None:
        """Writes the weights; every process calls it, one writes."""
        found = {}
        for index, (ours, _) in enumerate(self._pairs()):
            with _gathered([ours]):
                whole = _whole(ours)
                if writes:
                    found[str(index)] = whole.to("cpu", copy=True).contiguous()
        if writes:
            save_file(found, folder / _FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Takes up the weights of a checkpoint."""
        saved = load_file(folder / _FILE)
        for index, (ours, _) in enumerate(self._pairs()):
            with _gathered([ours]):
                whole = saved[str(index)].to(ours.device)
                if isinstance(ours, DTensor):
                    whole = distribute_tensor(whole, ours.device_mesh, ours.placements)
                ours.copy_(whole)


class FollowPolicy(TrainerCallback):  # type: ignore[misc]
    """Moves the reference every ``steps`` optimizer steps.

    Args:
        reference: what follows.
        steps: optimizer steps between moves.
        mix: share of the policy's weights.
    """

    def __init__(self, reference: MovingReference, steps: int, mix: float) -> None:
        self.reference, self.steps, self.mix = reference, steps, mix

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Warns where training is too short for the reference ever to move."""
        if state.max_steps < self.steps:
            warnings.warn(
                f"the reference never moves: sync_steps is {self.steps}, and training has "
                f"{state.max_steps} steps; lower sync_steps",
                stacklevel=2,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the step's update of the policy."""
        if state.global_step % self.steps == 0:
            self.reference.follow(self.mix)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


@contextlib.contextmanager
def _gathered(tensors: list[Tensor]) -> Iterator[None]:
    """Within, weights that DeepSpeed ZeRO-3 has sharded are whole."""
    sharded = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=0):
        yield
