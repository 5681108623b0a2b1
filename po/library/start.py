"""What a library user's training starts from: the policy, its tokenizer, and the reference."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

from po.faults import InputFault
from po.library.config import PreferenceConfig
from po.models.adapters import adapter_reference, check_adapter, with_adapter
from po.models.loading import check_attention, disable_dropout, model_class
from po.models.quantize import check_hardware, is_quantized
from po.references.cell import live_reference
from po.references.sources import Reference, StoredReference


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """The reference of a training.

    Attributes:
        reference: what the trainer asks; None where the method needs none.
        asked_before: the model whose values are stored with the rows before training; None where there is
            nothing to store.
        same_start: the reference is the policy before its first step.
        description: what it is, in a few words.
    """

    reference: Reference | None
    asked_before: Any
    same_start: bool
    description: str

    def without_model(self) -> "ReferenceChoice":
        """The same, once values are stored."""
        return dataclasses.replace(self, asked_before=None)


def load_policy(model: Any, args: PreferenceConfig, quantization_config: Any, peft_config: Any) -> Any:
    """The model that is to be trained, on its device, with adapters where they are wanted.

    Args:
        model: of transformers or peft, or an id or path of one.
        args: of the training.
        quantization_config: for a model that is loaded here.
        peft_config: adds adapters, which alone are trained.

    Raises:
        InputFault: settings for loading with a model that is loaded already; adapters upon adapters; or
            quantized weights without adapters.
    """
    if isinstance(model, str):
        model = load_model(model, args, quantization_config)
    elif quantization_config is not None or args.model_init_kwargs:
        what = "model_init_kwargs" if quantization_config is None else "quantization_config"
        raise InputFault(
            f"{what} is for loading a model, and this one is loaded; give the model as id or path"
        )
    if args.disable_dropout:
        disable_dropout(model)
    for config in getattr(model, "peft_config", {}).values():
        check_adapter(config)
    if peft_config is not None:
        model = with_adapter(model, peft_config)
    elif is_quantized(model) and not has_adapters(model):
        raise InputFault("quantized weights cannot be trained; give a peft_config, whose adapters can")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputFault(
            "no weights of this model can be trained; load its adapters with is_trainable=True, or undo "
            "requires_grad_(False)"
        )
    return placed(model, args)


def load_model(location: str, args: PreferenceConfig, quantization_config: Any = None) -> Any:
    """A model of an id or a path, of the class that its configuration needs.

    Args:
        location: id or path.
        args: has ``model_init_kwargs`` and ``trust_remote_code``.
        quantization_config: of transformers.

    Raises:
        InputFault: the model is none that writes texts.
        OSError: there is none at that place, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "trust_remote_code": args.trust_remote_code,
        # as in TRL: in pure bfloat16 a small learning rate would be rounded away
        **({"dtype": "float32"} if quantization_config is None else {}),
        **(_dict(args.model_init_kwargs)),
    }
    if quantization_config is not None:
        if getattr(quantization_config, "load_in_4bit", False):
            check_hardware("4bit", args.device)
        elif getattr(quantization_config, "load_in_8bit", False):
            check_hardware("8bit", args.device)
        settings = {"device_map": {"": args.device}, **settings, "quantization_config": quantization_config}
    known = {name: settings[name] for name in ("revision", "trust_remote_code", "token") if name in settings}
    config = AutoConfig.from_pretrained(location, **known)
    return check_attention(model_class(config, location).from_pretrained(location, **settings))


def load_processing_class(given: Any, model: Any, args: PreferenceConfig) -> Any:
    """The tokenizer, or the processor of a model that reads images.

    Args:
        given: by the user; taken as it is.
        model: whose name says where to find one; None where there is none.
        args: of the training.
    """
    location = name_of(model)
    if given is not None or not location:
        return given
    from transformers import AutoProcessor

    revision = _dict(args.model_init_kwargs).get("revision")
    more = {"revision": revision} if revision else {}
    return AutoProcessor.from_pretrained(location, trust_remote_code=args.trust_remote_code, **more)


def choose_reference(policy: Any, ref_model: Any, args: PreferenceConfig, *, fresh: bool) -> ReferenceChoice:
    """The reference that the method needs.

    A model that is given is asked in every step; without one it is the policy's start: a frozen copy of the
    model, or the model with its adapters off (fresh ones) or with a frozen copy of them (trained ones).

    Args:
        policy: before its first step.
        ref_model: given by the user: a model, an id or a path, or None.
        args: of the training; with ``precompute_ref_log_probs`` values are stored instead.
        fresh: the policy's adapters are new.

    Raises:
        InputFault: a reference for a method that has none, or the policy itself.
    """
    method = args.resolved_method
    if not method.needs_reference:
        if ref_model is not None:
            raise InputFault(f"{method.name} compares with no reference; leave ref_model out")
        return ReferenceChoice(None, None, same_start=False, description="")
    if ref_model is policy:
        raise InputFault("ref_model is the model itself; leave it out, and a frozen copy is made")
    moves = ", which follows the policy" if method.reference_sync else ""
    if ref_model is not None:
        name = ref_model if isinstance(ref_model, str) else name_of(ref_model)
        other = load_model(ref_model, args) if isinstance(ref_model, str) else ref_model
        if args.disable_dropout:
            disable_dropout(other)
        said = f"another model{f' ({name})' if name else ''}{moves}"
        if args.precompute_ref_log_probs:
            return ReferenceChoice(
                StoredReference(), placed(other, args), False, f"{said}, asked before training"
            )
        return ReferenceChoice(live_reference(method, policy, other), None, False, said)
    if args.precompute_ref_log_probs:
        said = "the model that training started from, asked before training"
        return ReferenceChoice(StoredReference(), policy, True, said)
    if has_adapters(policy):
        return _of_adapters(policy, fresh=fresh and not method.reference_sync, moves=moves)
    other = copy.deepcopy(policy)
    said = f"a copy of the model that training started from{moves}"
    return ReferenceChoice(live_reference(method, policy, other), None, True, said)


def _of_adapters(policy: Any, *, fresh: bool, moves: str) -> ReferenceChoice:
    kind = "off" if fresh else "copy"
    said = "the model without its adapters" if fresh else f"the adapters that training started from{moves}"
    return ReferenceChoice(adapter_reference(policy, kind), None, True, said)


def has_adapters(model: Any) -> bool:
    """Whether a model is one of peft."""
    return hasattr(model, "peft_config")


def name_of(model: Any) -> str:
    """Id or path from which a model was loaded; empty for one that was built."""
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")


def placed(model: Any, args: PreferenceConfig) -> Any:
    """The model on the training's device, unless it has its own place."""
    return model if is_quantized(model) or hasattr(model, "hf_device_map") else model.to(args.device)


def _dict(value: Any) -> dict[str, Any]:
    return dict(value or {})
