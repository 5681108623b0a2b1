"""Where the reference's values come from: stored with the rows, or a model that is asked for them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from po.engine.forward import completion_values
from po.engine.sharing import submodules_evaluating
from po.engine.token_values import Asked
from po.training.collate import STORED, mismatched_part, text_part
from po.training.layouts import Batch


class Reference(Protocol):
    """Something that knows the reference's values of a batch's completions."""

    def values(self, batch: Batch, asked: Asked) -> dict[str, Tensor]:
        """Values by name, one per row, as ``completion_values`` gives them; no gradients."""
        ...

    def mismatched(self, batch: Batch) -> Tensor:
        """Summed log-probabilities of completions under other prompts, (rows,)."""
        ...


class StoredReference:
    """Values that were computed before training and came with the rows."""

    def values(self, batch: Batch, asked: Asked) -> dict[str, Tensor]:
        """Those that the batch carries."""
        return {name.removeprefix("reference_"): batch[name] for name in STORED if name in batch}

    def mismatched(self, batch: Batch) -> Tensor:
        """As they came."""
        return batch["reference_mismatched_logps"]


class LiveReference:
    """A model that is asked in every step.

    Args:
        model: the reference, after ``attach_engine``; for adapters the policy itself.
        inside: makes a context within which ``model`` is the reference (adapters switched off, say).
    """

    def __init__(
        self,
        model: nn.Module,
        inside: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.model, self._inside = model, inside

    def place(self, device: torch.device) -> None:
        """Brings the model to a device. It is whole on every one, also where the policy is sharded."""
        self.model.to(device)

    @contextlib.contextmanager
    def asked(self) -> Iterator[nn.Module]:
        """The model, within a context in which it is the reference and does not drop out."""
        with self._inside(), submodules_evaluating(self.model):
            yield self.model

    @torch.no_grad()
    def values(self, batch: Batch, asked: Asked) -> dict[str, Tensor]:
        """Those that are asked for."""
        with self.asked() as model:
            return completion_values(model, text_part(batch), asked)[0]

    def mismatched(self, batch: Batch) -> Tensor:
        """One more pass."""
        return self.values(mismatched_part(batch), Asked())["logps"]
