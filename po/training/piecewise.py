"""Forward and backward pass of a micro-batch, piece after piece, so that memory depends on a token budget.

The loss of a piece is its share of the whole step's, so gradients add up to those of the micro-batch at once.
"""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from po.methods.method import Method
from po.models.sharding import is_sharded, least, most
from po.training.layouts import LAYOUTS, Batch
from po.training.pieces import Piece, can_be_split, cut, examples_of, part_of, tokens_of
from po.training.token_budget import automatic_budget

_WHOLE = "such batches cannot be split: give per_device_batch_size a smaller number"

Step = Callable[[Batch], Tensor]
"""Forward and backward pass of a batch; gives its loss, detached."""


def obstacle(method: Method, accelerator: Any, optimizer: str, *, router: bool) -> str | None:
    """Why micro-batches of a training must stay whole; None if they need not.

    Args:
        method: entry of the table, or one put together.
        accelerator: of accelerate.
        optimizer: ``optim`` of the training's arguments.
        router: a mixture of experts is trained with its load-balancing loss.
    """
    if method.batch_coupled or method.state is not None:
        return f"losses of {method.name} depend on the micro-batch"
    if router:
        return "the load of experts is balanced over a micro-batch"
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "DeepSpeed counts backward passes"
    if "lomo" in optimizer or "layerwise" in optimizer:
        return f"{optimizer} changes weights during the backward pass"
    return None


class Piecewise:
    """Runs micro-batches in pieces of at most ``budget`` tokens.

    Where memory runs out all the same, the gradients of the micro-batch are dropped, the budget is halved
    and the micro-batch begins again: for one process, in the first micro-batch of a step (which
    ``per_device_batch_size: auto`` makes the only one). Several processes would wait for one another.

    Args:
        accelerator: of accelerate.
        method: says where the examples of a batch are.
        obstacle: why micro-batches must stay whole, if they must.
        shared: prompts are computed once for all their completions.
        budget: in tokens; None chooses by the device when training begins.

    Attributes:
        budget: in tokens; None before the first micro-batch.
    """

    def __init__(
        self, accelerator: Any, method: Method, *, obstacle: str | None, shared: bool, budget: int | None
    ) -> None:
        self.budget = budget
        self._accelerator, self._layout = accelerator, LAYOUTS[method.data]
        self._obstacle, self._shared = obstacle, shared
        self._sharded: bool | None = None

    def run(
        self, model: nn.Module, optimizer: Any, batch: Batch, step: Step, undo: Callable[[], None]
    ) -> Tensor:
        """The loss of a micro-batch after its backward pass, detached.

        Args:
            model: that is trained, wrapped as it is for training.
            optimizer: its own, of torch.
            batch: as the collator made it, on its device.
            step: for each piece.
            undo: takes back what ``step`` noted beside gradients.

        Raises:
            RuntimeError: of the device, where memory runs out and the pieces cannot be smaller.
        """
        if self._obstacle is not None:
            try:
                return step(batch)
            except RuntimeError as error:
                _tell(error, f"{self._obstacle}; {_WHOLE}")
                raise
        begun = any(parameter.grad is not None for parameter in model.parameters())
        while True:
            pieces = self._pieces(model, optimizer, batch)
            try:
                return self._all(model, batch, pieces, step)
            except RuntimeError as error:
                largest = max((tokens_of(piece) for piece in pieces if len(piece) > 1), default=0)
                alone = self._accelerator.num_processes == 1
                if begun or not largest or not alone or not should_reduce_batch_size(error):
                    remedy = "lower training.speed.token_budget" if pieces else _WHOLE
                    _tell(error, f"{remedy}, or set gradient_checkpointing")
                    raise
            self.budget = min(largest // 2, self.budget or largest)
            warnings.warn(
                f"out of memory; from now on a piece has {self.budget} tokens or less", stacklevel=2
            )
            undo()
            model.zero_grad()
            clear_device_cache(garbage_collection=True)

    def _pieces(self, model: nn.Module, optimizer: Any, batch: Batch) -> list[Piece]:
        """The pieces of a batch; of one that must stay whole none, or a single one that cannot be smaller."""
        if self._sharded is None:
            self._sharded = is_sharded(model)
        if self.budget is None:
            plain, bf16 = self._accelerator.unwrap_model(model), self._accelerator.mixed_precision == "bf16"
            self.budget = automatic_budget(plain, optimizer, bf16=bf16)
        whole = not can_be_split(batch)
        examples = [] if whole else examples_of(batch, self._layout, shared=self._shared)
        most_pieces = max(1, len(examples))
        device = self._accelerator.device

        def agreed(count: int) -> int:
            """Every process runs a sharded model equally often."""
            return min(most(count, device), least(most_pieces, device)) if self._sharded else count

        if whole:
            agreed(1)
            return []
        return cut(examples, self.budget, agreed)

    def _all(self, model: nn.Module, batch: Batch, pieces: Sequence[Piece], step: Step) -> Tensor:
        if len(pieces) <= 1:
            return step(batch)
        total: Tensor | None = None
        for number, piece in enumerate(pieces, start=1):
            with self._held_back(model, last=number == len(pieces)):
                loss = step(part_of(batch, piece))
            total = loss if total is None else total + loss
        assert total is not None  # there are several pieces
        return total

    def _held_back(self, model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Within, gradients stay in their process: they are summed over processes once, with the last piece.

        FSDP2 would keep gradients of all weights on every device until then, so there each piece is summed.
        """
        accelerator = self._accelerator
        each = accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        if last or each or not accelerator.sync_gradients or accelerator.is_fsdp2:
            return contextlib.nullcontext()
        held: contextlib.AbstractContextManager[Any] = accelerator.no_sync(model)
        return held


def _tell(error: RuntimeError, remedy: str) -> None:
    """Adds what to do, where a device has no memory left."""
    if should_reduce_batch_size(error):
        error.add_note(remedy)
