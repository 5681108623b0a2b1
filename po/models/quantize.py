"""Base weights in 4 or 8 bits (bitsandbytes): loaded, refused where nothing computes with them, read back.

Quantized weights are only ever read. What is trained lies in adapters beside them, and what is published is
``original precision <- dequantized + adapter``: nothing is rounded to 4 bits a second time.
"""

import importlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from po.faults import InputFault

QUANTIZATIONS = ("4bit", "8bit")
_KINDS = {"Params4bit": "4bit", "Int8Params": "8bit"}  # bitsandbytes' classes of weights
_NEEDS = (
    "it needs bitsandbytes (pip install bitsandbytes) and a device for which that has kernels: an NVIDIA GPU "
    "of compute capability 6.0 or higher, an AMD or Intel GPU on its list, or a processor with AVX2. "
    "Elsewhere leave 'quantization' out; adapters work without it"
)


def quantization_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that quantize while loading; none for a model that stays as it is.

    4 bits are NF4 with quantized scales (QLoRA, arXiv:2305.14314), 8 bits are LLM.int8() (arXiv:2208.07339).
    Computation is in the model's ``dtype``.

    Args:
        spec: the manifest's model entry.

    Raises:
        InputFault: this machine cannot compute with such weights.
    """
    kind = spec.get("quantization")
    if kind is None:
        return {}
    from transformers import BitsAndBytesConfig

    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
    check_hardware(kind, device)
    dtype = getattr(torch, spec["dtype"])
    if kind == "8bit":
        # it would say in every layer of every pass that inputs are rounded to float16 first
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def check_hardware(kind: str, device: torch.device | str) -> None:
    """Quantizes a small matrix and reads it back.

    Args:
        kind: one of `QUANTIZATIONS`.
        device: where the model will be.

    Raises:
        InputFault: that fails, or gives something else; says what it needs.
    """
    weights = torch.linspace(-1, 1, 64 * 64, device=device).view(64, 64)
    try:
        functional = importlib.import_module("bitsandbytes.functional")
        if kind == "4bit":
            found = functional.dequantize_4bit(*functional.quantize_4bit(weights, quant_type="nf4"))
        else:
            codes, scales, _ = functional.int8_vectorwise_quant(weights.half())
            found = functional.int8_vectorwise_dequant(codes, scales)
        gap = (found.float() - weights).abs().max().item()
    except Exception as error:  # of many kinds: no package, no library, no kernel for this device
        raise InputFault(
            f"quantization: {kind} does not work on this machine ({type(error).__name__}: {error}); {_NEEDS}"
        ) from error
    if not gap < 0.2:
        raise InputFault(
            f"quantization: {kind} gives wrong values on this machine (off by {gap:.2g}); {_NEEDS}"
        )


def keep_as_they_are(model: Any) -> Any:
    """Keeps bitsandbytes from packing 4-bit weights anew in their first pass without gradients.

    It does so on processors with AVX512-BF16, with rounder scales: policy and reference would come apart, and
    what is read back would not be what was trained beside.

    Returns:
        The model.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def is_quantized(model: Any, kind: str | None = None) -> bool:
    """Whether a model, with adapters or without, has weights in few bits: of one kind, or of any."""
    return any(kind in (None, _kind(module)) for _, module in _quantized(model))


def dequantized_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The quantized weights as what they stand for, one at a time.

    Args:
        model: of transformers, or of peft; names are those of the model without adapters.

    Yields:
        Name of the module, its weights.
    """
    from peft.utils.integrations import dequantize_bnb_weight

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    for name, module in _quantized(base):
        weights = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
        yield name.removesuffix(".base_layer"), weights.to(base.dtype)


@torch.no_grad()
def dequantize(model: Any) -> None:
    """Puts plain linear layers in the place of quantized ones, with the weights that those stand for.

    Args:
        model: of transformers, without adapters; changed in place.
    """
    for name, weights in list(dequantized_weights(model)):
        old = model.get_submodule(name)
        new = nn.Linear(
            old.in_features, old.out_features, old.bias is not None, weights.device, weights.dtype
        )
        new.weight.copy_(weights)
        if old.bias is not None:
            new.bias = old.bias
        model.set_submodule(name, new)
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = model.is_loaded_in_4bit = model.is_loaded_in_8bit = False


def _quantized(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if _kind(module))


def _kind(module: nn.Module) -> str | None:
    return _KINDS.get(type(module._parameters.get("weight")).__name__)
