"""Adapters merged into the weights that they stand beside: for a reference of its own, and for publishing.

Quantized weights are dequantized first and stay so: the result is the model that was trained, in full size.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from po.engine.forward import attach_engine
from po.faults import InputFault
from po.models.quantize import dequantize, dequantized_weights, is_quantized
from po.models.sharding import is_sharded
from po.references.moving import MovingReference

ADAPTER = "adapter"  # folder of the adapters inside a published model


def merged_copy(model: Any) -> Any:
    """A model without adapters that answers as the one with them does, in memory of its own.

    Args:
        model: a ``PeftModel``, which stays as it is.

    Returns:
        A model of transformers; frozen.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    copied = copy.deepcopy(model)
    if is_quantized(model):
        config = copy.deepcopy(model.peft_config[model.active_adapter])
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        plain = copied.unload()
        dequantize(plain)
        copied = get_peft_model(plain, config)
        set_peft_model_state_dict(copied, state)
    return copied.merge_and_unload().requires_grad_(False).eval()


class MergedReference(MovingReference):
    """The policy's start with its adapters merged in; can follow the policy, whole weights mixed.

    Args:
        policy: a ``PeftModel`` that is whole on every process.
    """

    def __init__(self, policy: Any) -> None:
        model = attach_engine(merged_copy(policy))
        super().__init__(model, lambda: [(weights, weights) for weights in model.parameters()])
        self._policy = policy

    @torch.no_grad()
    def follow(self, mix: float) -> None:
        """Mixes with the policy's whole weights; takes the memory of one more model meanwhile.

        Raises:
            InputFault: the policy is not whole on each process.
        """
        if is_sharded(self._policy):
            raise InputFault(
                "a reference with adapters merged in cannot follow a policy that is spread over processes; "
                "take adapter.reference: copy"
            )
        now = merged_copy(self._policy)
        for ours, theirs in zip(self.model.parameters(), now.parameters(), strict=True):
            ours.lerp_(theirs.to(ours.device, ours.dtype), mix)


def save_merged(trainer: Any, folder: Path, plain: Callable[[], Any], dtype: torch.dtype) -> None:
    """Writes a trained model with its adapters merged in, and the adapters in a folder of their own.

    The weights are put together in float32 and rounded once. Every process calls it, one writes.

    Args:
        trainer: of transformers, after training a ``PeftModel``.
        folder: for the model.
        plain: loads the model that the adapters were trained beside, in float32 and not quantized.
        dtype: of the published weights.
    """
    from peft import PeftModel

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    policy, adapter = trainer.accelerator.unwrap_model(trainer.model), folder / ADAPTER
    policy.save_pretrained(
        str(adapter),
        state_dict=state,
        selected_adapters=[policy.active_adapter],
        save_embedding_layers=False,
    )
    model = plain()
    with torch.no_grad():
        for name, weights in dequantized_weights(policy):
            model.get_submodule(name).weight.copy_(weights)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.to(dtype).save_pretrained(folder)
