"""Options of TRL's trainers that are something else here, or nothing: what to write in their place."""

from collections.abc import Mapping
from types import MappingProxyType

from po.methods.aliases import METHOD_ALIASES

_TRAINERS = ("dpo", "cpo", "kto", "bco", "orpo")
_NO_PADDING = "padding is masked, needs no token of its own, and rows are computed in groups of like length"
_NO_ADAPTER_NAMES = "with peft_config the reference is the model without its new adapter"

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "loss_type": "the loss is chosen by method, such as 'ipo', 'dpo:hinge' or 'cpo:simpo'",
        "loss_weights": "write method='mix(dpo, sft)' with dpo_weight=... and sft_weight=...",
        "use_weighting": "write method='wpo', or 'wpo(METHOD)'",
        "sync_ref_model": "write method='tr_dpo', or 'tr_dpo(METHOD)'",
        "truncation_mode": "it is truncation, 'keep_end' or 'keep_start'",
        "max_target_length": "it is max_completion_length",
        "padding_free": _NO_PADDING,
        "padding_value": _NO_PADDING,
        "label_pad_token_id": _NO_PADDING,
        "pad_token": _NO_PADDING,
        "pad_to_multiple_of": _NO_PADDING,
        "precompute_ref_batch_size": "reference values are computed in batches of a fixed number of tokens",
        "dataset_num_proc": "texts are encoded once, in one process and in order",
        "is_encoder_decoder": "the model's configuration says so",
        "activation_offloading": "activations stay where they are; gradient_checkpointing saves memory",
        "use_liger_loss": "logits of completion tokens only are made, some at a time",
        "force_use_ref_model": "give ref_model to the trainer",
        "ref_model_init_kwargs": "load the reference yourself and give it to the trainer as ref_model",
        "model_adapter_name": _NO_ADAPTER_NAMES,
        "ref_adapter_name": _NO_ADAPTER_NAMES,
        "base_model_attribute_name": "the model's class says so",
        "model_revision": "it is model_init_kwargs={'revision': ...}",
        "bco_udm": "it is udm, of method='bco'",
    }
)
"""Option of a TRL trainer -> where it is now, as the end of a sentence."""


def moved(name: str, value: object) -> str:
    """The message about an option of TRL's.

    Args:
        name: one of `MOVED`.
        value: what was given; a loss type that has a name here is translated.
    """
    losses = list(value) if isinstance(value, list | tuple) else [value]
    if name == "loss_type" and len(losses) > 1:
        return moved("loss_weights", None).replace("loss_weights", "a list as loss_type", 1)
    if name == "loss_type":
        named = [f"{trainer}:{losses[0]}" for trainer in _TRAINERS]
        known = [f"'{name}'" for name in named if name in METHOD_ALIASES]
        if known:
            return f"loss_type is an option of TRL's; here write method={' or '.join(known)}."
    return f"{name} is an option of TRL's; here {MOVED[name]}."
