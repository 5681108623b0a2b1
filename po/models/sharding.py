"""Models whose weights lie spread over processes.

A part of such a model gathers its weights from all processes whenever it runs (FSDP2 in units, DeepSpeed
ZeRO-3 module by module). So every process must run each part equally often, whatever its rows; else one waits
for a gathering that the others never join.
"""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from po.faults import InputFault


def keep_answers_exact(accelerator: Any) -> None:
    """Lets a sharded model in bfloat16 answer in float32, and sums gradients over processes in float32.

    As accelerate sets FSDP2 up, all that a model returns is rounded to bfloat16: of a log-probability of -200
    a whole nat. To be called before the model is sharded; without FSDP it does nothing.

    Args:
        accelerator: of accelerate.

    Raises:
        InputFault: FSDP of version 1, which shards in a way that is not known here.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise InputFault(
            "FSDP of version 1 is not offered; set fsdp_version to 2, as po/configs/fsdp2.yaml has it"
        )
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, output_dtype=None, reduce_dtype=torch.float32
        )


def is_sharded(module: nn.Module) -> bool:
    """Whether weights of a module are spread over processes, be they gathered at present or not."""
    if not dist.is_initialized():
        return False
    if any(isinstance(part, FSDPModule) for part in module.modules()):
        return True
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())  # as DeepSpeed marks them


def least(count: int, device: torch.device) -> int:
    """The smallest of a count in all processes, each of which must ask."""
    return _agreed(count, device, dist.ReduceOp.MIN)


def most(count: int, device: torch.device) -> int:
    """The largest of a count in all processes, each of which must ask."""
    return _agreed(count, device, dist.ReduceOp.MAX)


def _agreed(count: int, device: torch.device, rule: dist.ReduceOp.RedOpType) -> int:
    found = torch.tensor(count, device=device)
    dist.all_reduce(found, op=rule)
    return int(found)
