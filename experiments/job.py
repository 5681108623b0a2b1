"""The unit of work: one stage of one folder, which starts when the jobs that it needs are done."""

import contextlib
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from experiments.atomic import read_json, write_json
from experiments.schema_resources import Limits
from experiments.stage_command import StageCommand, write_command
from experiments.units import Unit


@dataclass(frozen=True)
class Job:
    """A stage of a folder.

    Attributes:
        stage_hash: content hash of what the stage makes.
        module: its ``main(argv)`` does the work; it is named, not imported, so that planning stays light.
        artefacts: files below the folder that must be there afterwards.
        needs: the jobs that come first.
        label: what progress displays call it.
        limits: what it gets while it runs.
        group: jobs with the same one (and it is not empty) can share a process, and what that has loaded.
        shape: jobs with the same one take about the same time.
    """

    unit: Unit
    stage: str
    stage_hash: str
    module: str
    argv: tuple[str, ...]
    artefacts: tuple[str, ...]
    needs: tuple["Job", ...]
    label: str
    limits: Limits = Limits()
    group: str = ""
    shape: str = ""

    @property
    def cpus(self) -> int:
        """Cores of each node."""
        return self.limits.cpus

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return self.limits.gpus

    @property
    def folder(self) -> Path:
        """The folder it works in."""
        return self.unit.folder

    @functools.cached_property
    def key(self) -> tuple[str, str]:
        """Folder and stage: unique within a study."""
        return str(self.folder), self.stage

    def refresh_document(self) -> None:
        """Writes the folder's document where it is missing, damaged or of an older manifest."""
        path, wanted = self.unit.document_path, json.dumps(dict(self.unit.document), sort_keys=True)
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.dumps(read_json(path), sort_keys=True) == wanted:
                return
        write_json(path, dict(self.unit.document))

    @property
    def command(self) -> StageCommand:
        """The call that makes it."""
        return StageCommand(
            module=self.module,
            argv=self.argv,
            stage_hash=self.stage_hash,
            artefacts=self.artefacts,
            cpus=self.limits.cpus,
            gpus=self.limits.gpus,
            nodes=self.limits.nodes,
        )

    def write_command_files(self) -> None:
        """Writes the folder's document and the stage's command, which the stage's process reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.refresh_document()
        write_command(self.folder, self.stage, self.command)
