"""Models and tokenizers: loaded from where a cell says, or built from a configuration with random weights."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from po.faults import InputFault

POINTER = "model.json"


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
    """A causal language model with the manifest's dtype and attention.

    Args:
        location: a folder or a hub id.
        spec: the manifest's model entry.
        revision: commit of a hub id.

    Raises:
        OSError: there is no model at that place, or the hub cannot be reached.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        location,
        revision=revision,
        dtype=getattr(torch, spec["dtype"]),
        attn_implementation=spec["attention"],
        trust_remote_code=spec["trust_remote_code"],
        use_safetensors=True,
    )
    return check_attention(model)


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
    """Sets every dropout probability to 0: policy and reference must agree at step 0."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"):
        if getattr(model.config, name, None):
            setattr(model.config, name, 0.0)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document whole or not at all: under another name first, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
