"""The words of a manifest about machines: what a stage gets while it runs, and how SLURM is to run it.

Nothing here changes a result, so nothing here is part of a hash.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from experiments.problems import nearest
from experiments.schema_tasks import Count, Entry

Condition = Any  # a value, a list of values, or a mapping of lt, le, gt, ge; checked in selectors.py

_MEMORY = re.compile(r"[1-9]\d*[KMGT]?")
_TIME = re.compile(r"\d+|\d+:\d\d|(\d+-)?\d+:\d\d:\d\d|\d+-\d+(:\d\d)?")


class Limits(Entry):
    """What a stage gets while it runs.

    Attributes:
        cpus: cores of each node.
        gpus: of each node.
        nodes: more than one only under SLURM, and only for training.
        mem: main memory of each node as SLURM writes it, ``48G``; null leaves it to the cluster.
        time: wall-clock limit as SLURM writes it, ``04:00:00`` or minutes; null leaves it to the cluster.
        accelerate_config: how several devices train together: ``ddp``, ``fsdp2``, ``zero3``, or the path of a
            configuration of accelerate.
    """

    cpus: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    nodes: Count = 1
    mem: str | None = None
    time: str | None = None
    accelerate_config: str | None = None

    @property
    def n_processes(self) -> int:
        """Processes that train one cell: one for each GPU, at least one on each node."""
        return max(1, self.gpus) * self.nodes

    @field_validator("mem")
    @classmethod
    def _is_memory(cls, value: str | None) -> str | None:
        if value is not None and not _MEMORY.fullmatch(value):
            raise ValueError("memory is written as SLURM does: 48G, or 2000M")
        return value

    @field_validator("time", mode="before")
    @classmethod
    def _is_time(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and not _TIME.fullmatch(value):
            raise ValueError("a time is written as SLURM does: 04:00:00, 1-12:00:00, or minutes")
        return value


class LimitRule(Entry):
    """Other limits for the stages that match."""

    when: dict[str, Condition]
    values: Annotated[dict[str, Any], Field(alias="set", min_length=1)]

    @field_validator("values")
    @classmethod
    def _are_limits(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name not in Limits.model_fields:
                raise ValueError(f"'{name}' is no limit; {nearest(name, Limits.model_fields)}")
        checked = Limits.model_validate(values)
        return {name: getattr(checked, name) for name in values}


class Resources(Entry):
    """Default limits, and rules for exceptions; the last rule that matches wins."""

    default: Limits = Limits()
    rules: list[LimitRule] = []


# Options of sbatch that hold a submission together.
_OURS = frozenset(
    "array chdir comment dependency job-name open-mode output parsable signal test-only wait wrap".split()
)


class Slurm(Entry):
    """How SLURM runs a study. A site's file says the same words; what the manifest says wins.

    Attributes:
        max_parallel: elements that run at a time, of each kind and each level of parents and children.
        fuse: do the stages of a cell in one job where they ask for the same resources.
        max_attempts: failures of a stage after which it is left alone.
        requeue: let a job that was interrupted go back to the queue by itself.
        max_requeues: how often one job does so.
        kill_on_invalid_dep: let SLURM cancel jobs whose dependency failed; else they start and find out.
        signal_lead: seconds before the time limit at which a job is told to save and stop.
        setup: lines of bash that every job begins with, such as ``module load cuda``.
        python: the interpreter of the jobs; null for the one that submits.
        offline: forbid the jobs after the preparation to ask a hub; compute nodes often cannot.
        prefix: words before every command of a job, such as ``[apptainer, exec, --nv, image.sif]``.
        extra: further options of sbatch.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    max_parallel: Count = 8
    max_array_size: Count | None = None
    fuse: bool = True
    max_attempts: Count = 3
    requeue: bool = True
    max_requeues: Count = 50
    kill_on_invalid_dep: bool = True
    signal_lead: Annotated[int, Field(ge=1, le=65535)] = 240
    gpu_option: Literal["gres", "gpus-per-node"] = "gres"
    gpu_type: str | None = None
    python: str | None = None
    offline: bool = True
    setup: list[str] = []
    prefix: list[str] = []
    extra: list[str] = []

    @field_validator("setup", "prefix", "extra", mode="before")
    @classmethod
    def _nothing_is_an_empty_list(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: list[str]) -> list[str]:
        if value and not value[0].startswith("-"):
            raise ValueError(f"'{value[0]}' is no option of sbatch; options begin with -")
        for word in value:
            name = word.partition("=")[0]
            if name.startswith("-") and " " in name:
                raise ValueError(f"'{word}': write option and value as --name=value, or as two words")
            if name.removeprefix("--") in _OURS and name.startswith("--"):
                raise ValueError(f"'{name}' is set for every job and cannot be given here")
        return value
