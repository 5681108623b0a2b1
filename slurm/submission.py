"""The folder of one submission: what each array element is to do, frozen when it is submitted.

Below ``submissions/<id>/``:

    manifest.yaml          the manifest as it was
    <array>.jsonl          one line for each element; elements read it and never the manifest again
    job.sh, commands.sh    the script of all jobs, and how it was queued
    jobs.json              ids of the jobs, written as they come
    logs/<array>/<index>.log
"""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.atomic import write_json, write_text
from experiments.job import Job
from experiments.stage_command import StageCommand
from slurm.arrays import Array
from slurm.tasks import Task

FOLDER = "submissions"


@dataclass(frozen=True)
class FrozenStage:
    """A stage as it stands in a list; ``folder`` and those of ``needs`` are relative to the experiment's."""

    folder: str
    stage: str
    label: str
    command: StageCommand
    document_name: str
    document: Mapping[str, Any]
    needs: tuple[tuple[str, str, str], ...]  # folder, stage and hash of what must be done first

    @classmethod
    def of(cls, job: Job, root: Path, max_attempts: int) -> "FrozenStage":
        """A job in the form in which it is written down."""
        needs = tuple((_inside(n.folder, root), n.stage, n.stage_hash) for n in job.needs)
        command = replace(job.command, max_attempts=max_attempts)
        if job.limits.nodes > 1:
            command = replace(command, module="slurm.across_nodes")
        document, name = dict(job.unit.document), job.unit.document_path.name
        return cls(_inside(job.folder, root), job.stage, job.label, command, name, document, needs)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "FrozenStage":
        """A stage of a list's line."""
        needs = tuple((folder, stage, digest) for folder, stage, digest in found["needs"])
        return cls(**{**found, "command": StageCommand(**found["command"]), "needs": needs})


def new_submission(root: Path) -> Path:
    """Makes a folder below ``root/submissions``; its name sorts by time."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = root / FOLDER / name
    folder.mkdir(parents=True)
    return folder


def list_path(submission: Path, array: str) -> Path:
    """The list of an array."""
    return submission / f"{array}.jsonl"


def log_path(submission: Path, array: str, index: object) -> Path:
    """The log of an element; ``%a`` stands for its index."""
    return submission / "logs" / array / f"{index}.log"


def write_list(submission: Path, array: Array, root: Path, max_attempts: int) -> None:
    """Freezes what the elements of an array do, and makes the folder of their logs."""
    lines = (_line(index, task, root, max_attempts) for index, task in array.tasks.items())
    write_text(list_path(submission, array.name), "".join(lines))
    # without its folder SLURM drops the job and says nothing
    log_path(submission, array.name, 0).parent.mkdir(parents=True)


def read_element(submission: Path, array: str, index: int) -> tuple[str, list[FrozenStage]]:
    """Label and stages of an element.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: it has no such element.
    """
    path = list_path(submission, array)
    if not path.is_file():
        lists = ", ".join(sorted(found.stem for found in submission.glob("*.jsonl")))
        known = (
            f"its lists: {lists}" if lists else "a submission is a folder such as runs/NAME/submissions/ID"
        )
        raise FileNotFoundError(f"{submission} has no list {path.name}; {known}")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            found = json.loads(line)
            if found["index"] == index:
                return found["label"], [FrozenStage.read(stage) for stage in found["stages"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: no element can be read from this line ({error!r})") from error
    raise ValueError(f"{path}: has no element {index}")


def write_jobs(submission: Path, jobs: Sequence[Mapping[str, Any]], *, cancelled: bool = False) -> None:
    """Replaces ``jobs.json``."""
    write_json(submission / "jobs.json", {"schema": 1, "cancelled": cancelled, "jobs": list(jobs)})


def _line(index: int, task: Task, root: Path, max_attempts: int) -> str:
    stages = [asdict(FrozenStage.of(job, root, max_attempts)) for job in task.jobs]
    return json.dumps({"index": index, "label": task.label, "stages": stages}, ensure_ascii=False) + "\n"


def _inside(folder: Path, root: Path) -> str:
    return os.path.relpath(folder, root)
