"""Other kernels for the layers of a model: compiled by torch, or those of the package liger-kernel.

Both compute what the layers compute, up to the order of rounding. The engine's attention over packed rows and
the head stay as they are.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from po.engine.attention import is_packed_name
from po.engine.sharing import submodules_evaluating
from po.faults import InputFault
from po.settings import SpeedSettings

_TOLERATED_GAP = {torch.float32: 1e-3, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Of hidden states between kernels, relative to the largest."""
_LEFT_OUT: set[str] = set()  # attention functions that are not compiled


def use_kernels(model: Any, speed: SpeedSettings) -> None:
    """Does to a model what ``speed.liger`` and ``speed.compile`` ask for; without them nothing.

    Args:
        model: a language model of transformers after ``attach_engine``, adapters included, not yet wrapped
            for distributed training. Its modules, weights and their names stay the same.
        speed: the settings.

    Raises:
        InputFault: what is asked for cannot be had here.
    """
    if speed.liger:
        use_liger(model)
    if speed.compile:
        compile_layers(model)


def compile_layers(model: nn.Module, backend: str = "inductor") -> int:
    """Compiles each layer in place, for rows of any length.

    Layers of one kind share their code, so compiling takes as long for many layers as for one. Attention over
    packed rows is left out: it depends on the rows in more than their length. Norms, rotations, activations
    and sums are fused; gradient checkpointing, adapters and DDP see the same modules as before.

    Args:
        model: as in ``use_kernels``.
        backend: of ``torch.compile``.

    Returns:
        The number of compiled layers.

    Raises:
        InputFault: no compiler works on this machine.
    """
    _check_compiler(model, backend)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inner = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    outer = [layer for layer in layers if id(layer) not in inner]
    if not outer:
        warnings.warn(
            f"{type(model).__name__} has no layers that are known here; nothing is compiled", stacklevel=2
        )
    name = model.config.get_text_config()._attn_implementation  # type: ignore[union-attr, operator]
    if is_packed_name(name) and name not in _LEFT_OUT:
        _LEFT_OUT.add(name)
        plain = torch.compiler.disable(ALL_ATTENTION_FUNCTIONS[name])  # type: ignore[no-untyped-call]
        ALL_ATTENTION_FUNCTIONS.register(name, plain)
    # cuts graphs where DDP sums gradients; here each layer is a graph of its own, and DDP sums between them
    torch._dynamo.config.optimize_ddp = False
    for layer in outer:
        layer.compile(dynamic=True, backend=backend)
    return len(outer)


def _check_compiler(model: nn.Module, backend: str) -> None:
    """Compiles a small function: a missing compiler shows now, in one line, and not in the first step."""
    device = next(model.parameters()).device
    try:
        torch.compile(_small, backend=backend)(torch.ones(8, device=device))
    except (RuntimeError, OSError) as error:
        inner = getattr(error, "inner_exception", error)
        text = next((line for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
        raise InputFault(
            f"training.speed.compile: torch.compile does not work here ({text[:200]}); a C++ compiler (CXX, "
            "or g++) with Python's headers is needed; install it, or set compile: false"
        ) from error


def _small(values: Tensor) -> Tensor:
    return values.sin() + values.cos()


def use_liger(model: Any) -> None:
    """Replaces norms, gated activations and rotations of a model's layers by those of liger-kernel.

    Its losses and its head are left out: they make logits of all tokens, or none that could be scored here.
    Rotations are replaced for all models of the same architecture in this process. An architecture that
    liger-kernel does not know keeps its layers, with a warning.

    Args:
        model: as in ``use_kernels``.

    Raises:
        InputFault: there is no CUDA device, or no liger-kernel, or its layers answer otherwise.
    """
    if not torch.cuda.is_available():
        raise InputFault(
            "training.speed.liger: its kernels run on CUDA, and no CUDA device is visible; set liger: false "
            "(compile: true fuses the same layers on a CPU)"
        )
    try:
        liger = import_module("liger_kernel.transformers")
        known = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:
        raise InputFault(
            f"training.speed.liger: liger-kernel cannot be imported ({error}); run: pip install "
            "'preference-suite[liger]', or set liger: false"
        ) from None
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = plain.config.model_type
    if kind not in known:
        warnings.warn(f"liger-kernel has no kernels for models of type '{kind}'; layers stay", stacklevel=2)
        return

    def replace() -> None:
        liger._apply_liger_kernel_to_instance(
            model=plain, fused_linear_cross_entropy=False, cross_entropy=False
        )

    if plain.device.type == "cuda":
        check_same_states(plain, replace)
    else:  # sharding brings the weights to their devices later
        replace()


@torch.no_grad()
def check_same_states(model: Any, change: Callable[[], None]) -> None:
    """Makes a change to a model's layers, which must leave its hidden states as they are but for rounding.

    Raises:
        InputFault: they differ by more.
    """
    vocabulary = model.config.get_text_config().vocab_size
    ids = (torch.arange(1, 17, device=model.device) * 7919 % vocabulary).unsqueeze(0)
    with submodules_evaluating(model):
        before = model.base_model(input_ids=ids, use_cache=False)[0].float()
        change()
        after = model.base_model(input_ids=ids, use_cache=False)[0].float()
    gap = ((after - before).abs().max() / before.abs().max()).item()
    if not gap <= _TOLERATED_GAP.get(model.dtype, 1e-3):
        raise InputFault(
            f"training.speed.liger: with its kernels the hidden states of {type(model).__name__} differ by "
            f"{gap:.2g} of the largest; set liger: false"
        )
