"""The words of a manifest that decide how fast a cell is trained, not what comes out."""

from typing import Annotated, Any, Final, Literal

from pydantic import PlainValidator

from experiments.schema_tasks import Count, Entry

AUTO: Final = "auto"


def _micro_batch(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value == AUTO or (whole and value >= 1):
        return value
    raise ValueError("write a whole number of at least 1, or auto")


MicroBatch = Annotated[int | Literal["auto"], PlainValidator(_micro_batch)]
"""Examples that a process takes at once; ``auto``: all that it has of a step, in pieces as memory allows."""


class Speed(Entry):
    """How a cell's steps are computed; no part of what a cell is.

    Whatever is chosen, the sums of a step are the same, in another order of rounding.

    Attributes:
        sharing: rows are packed and each prompt is computed once, where the architecture allows it.
        head: gradients of the head in the pass that makes its logits where that can be, or in a second
            one.
        token_budget: tokens of one forward and backward pass; None chooses by the device. See docs/speed.md.
        compile: torch.compile.
        liger: kernels of the package liger-kernel, on CUDA.
    """

    sharing: Literal["auto", "off"] = "auto"
    head: Literal["fused", "recompute"] = "fused"
    token_budget: Count | None = None
    compile: bool = False
    liger: bool = False
