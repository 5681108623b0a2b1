"""Examples with which accelerate fills the last micro-batches of an epoch: computed, but not counted again.

Every process must run equally often, and on as many rows. Where the rows of an epoch do not divide,
accelerate takes some from its beginning again. They would weigh as much as rows of their own.
"""

from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from torch import Tensor

from po.methods.method import Method
from po.training.layouts import COUNTED, LAYOUTS, Batch, Layout


def marked(samples: list[Any], method: Method, state: Any) -> list[Any]:
    """The micro-batches of a step; the last one of an epoch has a column ``COUNTED`` if it was filled up.

    It is as it was where the loss compares its examples, and where one cannot tell: rows do not come by a
    sampler, or some give two examples and some one.

    Args:
        samples: as the collator made them.
        method: that learns from them.
        state: of accelerate's gradients, which knows where the samples come from.
    """
    coupled = method.batch_coupled or method.state is not None
    if not samples or not state.end_of_dataloader or coupled:
        return samples
    return [*samples[:-1], _marked(samples[-1], LAYOUTS[method.data], state.active_dataloader)]


def _marked(batch: Batch, layout: Layout, loader: Any) -> Batch:
    sampler = getattr(loader, "batch_sampler", None)
    while isinstance(sampler, SkipBatchSampler):  # of a run that goes on
        sampler = sampler.batch_sampler
    if not isinstance(sampler, BatchSamplerShard) or sampler.split_batches or sampler.drop_last:
        return batch
    size, examples = sampler.batch_size, layout.examples(batch)
    own = own_rows(len(sampler.batch_sampler.sampler), size, sampler.num_processes, sampler.process_index)
    if own == size or examples % size:
        return batch
    # pairs are two examples each to an unpaired method, and the second ones stand below the first ones
    counted: Tensor = torch.arange(examples, device=batch["completion_mask"].device) % size < own
    return {**batch, COUNTED: counted}


def own_rows(rows: int, size: int, processes: int, process: int) -> int:
    """How many rows of a process's last micro-batch of an epoch are no repeats; they come first.

    Args:
        rows: of an epoch.
        size: of a micro-batch.
        processes: that share the rows.
        process: the one that is asked about.
    """
    last = rows % (size * processes) or size * processes
    return max(0, min(size, last - process * size))
