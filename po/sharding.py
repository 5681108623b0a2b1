"""Models whose weights lie spread over processes.

A part of such a model gathers its weights from all processes whenever it runs (FSDP2 in units, DeepSpeed
ZeRO-3 module by module). So every process must run each part equally often, whatever its rows; else one waits
for a gathering that the others never join.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor


def is_sharded(module: nn.Module) -> bool:
    """Whether weights of a module are spread over processes and not gathered at present."""
    return any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in module.parameters())


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
