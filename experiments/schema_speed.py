"""The words of a manifest that decide how fast a cell is trained, not what comes out."""

from typing import Annotated, Any, Final, Literal

from pydantic import PlainValidator

from experiments.schema_tasks import Count, Entry
from po.settings import Head, Sharing, SpeedSettings

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

    Whatever is chosen, the sums of a step are the same, in another order of rounding. What the words mean,
    and what holds where one is not given, is said in ``po.settings.SpeedSettings``; see docs/speed.md.
    """

    sharing: Sharing = SpeedSettings.sharing
    head: Head = SpeedSettings.head
    token_budget: Count | None = SpeedSettings.token_budget
    compile: bool = SpeedSettings.compile
    liger: bool = SpeedSettings.liger
