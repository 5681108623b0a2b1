"""Adapters (LoRA, through peft): a few trained weights beside frozen ones, and what the reference is then.

A model with adapters holds its own reference. Three kinds of it, all asked in every step:

* ``off``: the model with its adapters switched off. Right for new adapters, which change nothing yet.
* ``copy``: a second, frozen copy of the adapters under another name. Right for adapters that were trained
  before; it can follow the policy (TR-DPO), which mixes the adapters' weights.
* ``merged``: a model of its own, with the adapters merged into its weights. It takes the memory of a whole
  model; where it follows the policy, whole weights are mixed.
"""

import contextlib
import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from po.engine.forward import attach_engine
from po.faults import InputFault
from po.methods.hyperparameters import nearest
from po.models.adapter_settings import REFERENCES, AdapterSettings
from po.models.merging import MergedReference
from po.models.quantize import is_quantized, keep_as_they_are
from po.references.moving import MovingReference
from po.references.sources import LiveReference

_COPY = "reference_copy"  # name of the second adapter


def with_adapter(model: Any, settings: Any, *, seed: int | None = None) -> Any:
    """Freezes a model and adds new adapters, which alone are trained.

    Args:
        model: of transformers; changed in place. Quantized weights may stay as they are.
        settings: ``AdapterSettings``, a mapping of them, or a configuration of peft (``LoraConfig``).
        seed: of what is drawn; the state of the random numbers is put back. None: draw from that state.

    Returns:
        A ``PeftModel``.

    Raises:
        InputFault: the model has adapters already, or no module of a given name; the adapters would pull
            tied embeddings apart; or they are no adapters of weights (prompt tuning).
    """
    from peft import get_peft_model

    if hasattr(model, "peft_config"):
        raise InputFault("the model has adapters already; train those, or give it after merge_and_unload()")
    if isinstance(settings, Mapping):
        settings = AdapterSettings.of(settings)
    config = settings
    if isinstance(settings, AdapterSettings):
        config = settings.config(encoder_decoder=bool(model.config.is_encoder_decoder))
    config = _checked(config, model)
    with contextlib.ExitStack() as stack:
        if seed is not None:
            cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
            stack.enter_context(torch.random.fork_rng(cuda))
            torch.manual_seed(seed)
        return get_peft_model(keep_as_they_are(model), config)


def with_saved_adapter(model: Any, folder: Path) -> Any:
    """A model with the adapters of a folder, to be trained on.

    Args:
        model: of transformers, the one that the adapters were trained beside; changed in place.
        folder: as peft's ``save_pretrained`` writes it.

    Returns:
        A ``PeftModel``.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def adapter_reference(model: Any, kind: str) -> LiveReference:
    """The policy's start as reference, out of a policy with adapters.

    Args:
        model: a ``PeftModel`` before its first step.
        kind: one of `REFERENCES`; the text of this module says what they are. All but ``off`` can follow the
            policy.

    Raises:
        InputFault: an unknown kind, or a model without adapters.
    """
    if kind not in REFERENCES:
        message = f"there is no reference '{kind}' of adapters{nearest(kind, REFERENCES)}"
        raise InputFault(f"{message} There are: {', '.join(REFERENCES)}.")
    if not hasattr(model, "disable_adapter"):
        raise InputFault(
            "the model has no adapters that could be switched off; add some: po.models.adapters.with_adapter"
        )
    attach_engine(keep_as_they_are(model))
    if kind == "off":
        return SharedReference(model, lambda: _switched_off(model))
    return MergedReference(model) if kind == "merged" else _copy_of_adapters(model)


class SharedReference(LiveReference):
    """A reference that is the policy itself, with other adapters or none."""

    def place(self, device: torch.device) -> None:
        """Stays: it is where the policy is."""


class CopiedAdapters(SharedReference, MovingReference):
    """A frozen copy of the policy's adapters, which can follow them."""


def _copy_of_adapters(model: Any) -> CopiedAdapters:
    if _COPY not in model.peft_config:
        # its weights are written over; some ways of drawing them would change the frozen ones
        plain = {"init_lora_weights": True} if hasattr(_config_of(model), "init_lora_weights") else {}
        model.add_adapter(_COPY, dataclasses.replace(copy.deepcopy(_config_of(model)), **plain))
    pairs = _pairs_of(model, model.active_adapter)
    with torch.no_grad():
        for ours, theirs in pairs():
            ours.requires_grad_(False).copy_(theirs)
    # Beside a second adapter's folder the Trainer would not read the first one's weights on resuming.
    model.save_pretrained = functools.partial(model.save_pretrained, selected_adapters=[model.active_adapter])
    return CopiedAdapters(model, pairs, lambda: _switched_to(model, _COPY))


def _config_of(model: Any) -> Any:
    return model.peft_config[model.active_adapter]


def _pairs_of(model: nn.Module, active: str) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """Finds the weights of the copy with those of the policy's adapters."""

    def pairs() -> list[tuple[Tensor, Tensor]]:
        found = dict(model.named_parameters())
        ours = {name: name.split(".") for name in found if _COPY in name.split(".")}
        return [
            (found[name], found[".".join(active if part == _COPY else part for part in parts)])
            for name, parts in ours.items()
        ]

    return pairs


@contextlib.contextmanager
def _switched_off(model: Any) -> Iterator[None]:
    with _same_trained(model), model.disable_adapter():
        yield


@contextlib.contextmanager
def _switched_to(model: Any, name: str) -> Iterator[None]:
    active = model.active_adapter
    with _same_trained(model):
        model.set_adapter(name, inference_mode=True)
        try:
            yield
        finally:
            model.set_adapter(active)


@contextlib.contextmanager
def _same_trained(model: nn.Module) -> Iterator[None]:
    """Puts back which weights are trained: peft marks all of the adapters that it switches on."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, trained in before:
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)


def check_adapter(config: Any) -> None:
    """Refuses adapters under which a text's values are not those of its tokens alone.

    Args:
        config: of peft.

    Raises:
        InputFault: it lengthens prompts, or begins to act at certain tokens of a text.
    """
    if config.is_prompt_learning:
        raise InputFault(f"{config.peft_type.value} lengthens prompts, which moves the tokens; use LoRA")
    if getattr(config, "alora_invocation_tokens", None):
        raise InputFault("alora_invocation_tokens: such adapters act on parts of a text only; use plain LoRA")


def _checked(config: Any, model: Any) -> Any:
    """The configuration, such that tied embeddings stay tied.

    Raises:
        InputFault: see ``with_adapter``.
    """
    check_adapter(config)
    targets, whole = (getattr(config, name, None) for name in ("target_modules", "modules_to_save"))
    if getattr(config, "use_dora", False) and is_quantized(model, "8bit"):
        raise InputFault("dora does not go with weights in 8 bits; take 4 bits, or leave one of the two out")
    _refuse_unknown(model, "target_modules", targets)
    _refuse_unknown(model, "modules_to_save", whole)
    tied = _tied(model)
    adapted = [name for name in tied if targets != "all-linear" and _names(targets, name)]
    saved = [name for name in tied if _names(whole, name)]
    if adapted or (saved and (model.config.is_encoder_decoder or not hasattr(config, "ensure_weight_tying"))):
        named = (adapted or saved)[0]
        others = ", ".join(name for name in tied if name != named)
        whole = "" if model.config.is_encoder_decoder else ", or name it in modules_to_save: both stay one"
        raise InputFault(
            f"'{named}' shares its weights with {others}, and an adapter there would part them; leave it out"
            f"{whole}"
        )
    return dataclasses.replace(config, ensure_weight_tying=True) if saved else config


def _tied(model: Any) -> list[str]:
    """Names of the modules that share one matrix as embeddings and as head; none where it is not shared."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    shared = getattr(inputs, "weight", None)
    if outputs is None or getattr(outputs, "weight", None) is not shared:
        return []
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if vars(module).get("_parameters", {}).get("weight") is shared]


def _refuse_unknown(model: nn.Module, place: str, wanted: Any) -> None:
    if wanted is None or isinstance(wanted, str):
        return
    modules = dict(model.named_modules())
    for one in wanted:
        if not any(_names([one], name) for name in modules):
            known = sorted({name.rpartition(".")[2] for name, it in modules.items() if hasattr(it, "weight")})
            message = f"adapter.{place}: the model has no module '{one}'{nearest(one, known)}"
            raise InputFault(f"{message} It has: {', '.join(known)}.")


def _names(wanted: Any, name: str) -> bool:
    """Whether a module is meant, by peft's rules: a pattern for whole names, or last parts of names."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in wanted or ())
