"""Models and tokenizers: loaded from where a cell says, or built from a configuration with random weights."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from po.faults import InputFault
from po.models.quantize import keep_as_they_are, quantization_options

POINTER = "model.json"
_DROPS = re.compile(r"drop|^(input_)?jitter_noise$|^moe_jitter_eps$")
"""Attributes of modules and configurations that are chances of dropping, or noise in front of a router."""
_P = re.compile(r"^p$")  # of torch's own dropout


def model_location(cell: Path) -> tuple[str, str | None]:
    """Where a finished cell's weights are: a folder, or a hub id with its revision.

    Raises:
        InputFault: the cell has no weights yet.
    """
    pointer = cell / POINTER
    if not pointer.is_file():
        raise InputFault(
            f"{pointer} is missing: {cell.name} is not trained yet; run: python -m experiments.run MANIFEST"
        )
    found = json.loads(pointer.read_text(encoding="utf-8"))
    if "id" in found:
        return found["id"], found["revision"]
    return str((cell / found["path"]).resolve()), None


def load_model(location: str, spec: Mapping[str, Any], revision: str | None = None) -> Any:
    """A language model with the manifest's dtype and attention, of the class that its configuration needs.

    Args:
        location: a folder or a hub id.
        spec: the manifest's model entry.
        revision: commit of a hub id.

    Raises:
        InputFault: the model is none that continues or answers texts, or cannot be quantized here.
        OSError: there is no model at that place, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    _check_installed(spec["attention"])
    remote = {"revision": revision, "trust_remote_code": spec["trust_remote_code"]}
    config = AutoConfig.from_pretrained(location, **remote)
    model = model_class(config, location).from_pretrained(
        location,
        config=config,
        dtype=getattr(torch, spec["dtype"]),
        attn_implementation=spec["attention"],
        use_safetensors=True,
        **quantization_options(spec),
        **remote,
    )
    return check_attention(keep_as_they_are(model))


def model_class(config: Any, location: str) -> Any:
    """The class of transformers that loads a model: encoder-decoder, with images, or text alone.

    Args:
        config: the model's configuration.
        location: how a message names the model.

    Raises:
        InputFault: the model is none of these.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    causal = ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING)
    kinds = [causal]
    if config.is_encoder_decoder:
        kinds = [("AutoModelForSeq2SeqLM", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING)]
    elif hasattr(config, "vision_config"):
        images = ("AutoModelForImageTextToText", modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
        kinds = [images, causal]
    remote = getattr(config, "auto_map", None) or {}
    for kind, known in kinds:
        if type(config) in known or kind in remote:
            return getattr(transformers, kind)
    raise InputFault(
        f"{location}: a model of type '{config.model_type}' writes no text that could be preferred; give a "
        "causal language model, an encoder-decoder, or one that reads images and writes text"
    )


def _check_installed(attention: str) -> None:
    from transformers.utils import is_flash_attn_2_available

    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise InputFault(
            "attention: flash_attention_2 needs a CUDA device and the package flash-attn "
            "(pip install flash-attn); or set attention: sdpa"
        )


def check_attention(model: Any) -> Any:
    """Falls back to eager attention, loudly, where SDPA would drop the cap of attention logits (Gemma 2)."""
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation == "sdpa":
        warnings.warn(
            "sdpa leaves out this model's cap on attention logits; eager attention is used", stacklevel=2
        )
        model.set_attn_implementation("eager")
    return model


def build_model(spec: Mapping[str, Any], tokenizer: Any, seed: int) -> Any:
    """A model of a configuration, its random weights decided by the seed.

    Args:
        spec: the manifest's model entry with ``from_scratch``.
        tokenizer: decides vocabulary and special tokens.
        seed: seed of the initial weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    _check_installed(spec["attention"])
    shape = spec["from_scratch"]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"] or 4 * shape["hidden_size"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"] or shape["heads"],
        max_position_embeddings=shape["max_positions"],
        tie_word_embeddings=shape["tie_embeddings"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=spec["attention"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(getattr(torch, spec["dtype"]))


def load_tokenizer(corpus: Path) -> Any:
    """The tokenizer that prepared a cell's data.

    Raises:
        InputFault: the data have not been prepared.
    """
    from transformers import AutoTokenizer

    if not (corpus / "tokenizer").is_dir():
        raise InputFault(f"{corpus / 'tokenizer'} is missing; run: python -m experiments.prepare {corpus}")
    return AutoTokenizer.from_pretrained(corpus / "tokenizer")


def disable_dropout(model: torch.nn.Module) -> None:
    """Sets all chances of dropping units or layers to 0: policy and reference must agree at step 0.

    Modules copy the values of their configuration under other names, so both are changed; so is the noise
    that some mixtures of experts put in front of their routers.
    """
    for holder, name in _dropping(model):
        setattr(holder, name, 0.0)
    if _draws_experts(model):
        warnings.warn(
            f"{type(model).__name__} draws experts in training, which cannot be turned off: its losses are "
            "noisy, and policy and reference differ from the first step on",
            stacklevel=2,
        )


def drops_out(model: torch.nn.Module) -> bool:
    """Whether a model in training answers differently from one call to the next."""
    return any(_dropping(model)) or _draws_experts(model)


def _draws_experts(model: torch.nn.Module) -> bool:
    """Whether a mixture's routers draw in training (PhiMoE), which no setting of theirs turns off."""
    return any(getattr(module, "router_jitter_noise", 0) for module in model.modules())


def _dropping(model: torch.nn.Module) -> Iterator[tuple[Any, str]]:
    """Module or configuration, and the attribute, of all that is drawn in training."""
    found = [one for module in model.modules() for one in (module, vars(module).get("config"))]
    for holder in {id(one): one for one in found if hasattr(one, "__dict__")}.values():
        pattern = _P if isinstance(holder, torch.nn.modules.dropout._DropoutNd) else _DROPS
        for name, value in list(vars(holder).items()):
            if isinstance(value, float) and value > 0 and pattern.search(name):
                yield holder, name
