"""What a stage process is to run: ``stage.<stage>.json`` in the cell's folder, written by the planner."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.atomic import read_json, write_json

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCommand:
    """One stage of one cell as a call.

    Attributes:
        module: imported by the stage process; its ``main(argv)`` returns an exit code.
        argv: arguments of ``main``, without a program name.
        stage_hash: content hash of everything that changes the stage's output.
        artefacts: files or folders that the stage leaves, relative to the cell's folder.
        max_attempts: failures after which nothing is tried again by itself; >= 1.
        cpus, gpus: of each node, for the record of what the stage has cost.
        nodes: that it runs on.
    """

    module: str
    argv: tuple[str, ...]
    stage_hash: str
    artefacts: tuple[str, ...]
    max_attempts: int = 3
    cpus: int = 1
    gpus: int = 0
    nodes: int = 1

    def __post_init__(self) -> None:
        for name in ("module", "stage_hash"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} = {getattr(self, name)!r}: a text that is not empty is needed")
        for name in ("argv", "artefacts"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{name} = {values!r}: a list of texts is needed")
            object.__setattr__(self, name, tuple(values))
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ValueError(f"max_attempts = {self.max_attempts!r}: a whole number from 1 is needed")


def write_command(folder: Path, stage: str, command: StageCommand) -> None:
    """Writes ``stage.<stage>.json`` atomically."""
    write_json(_path(folder, stage), {"schema": _SCHEMA, **asdict(command)})


def read_command(folder: Path, stage: str) -> StageCommand:
    """Reads ``stage.<stage>.json``.

    Raises:
        FileNotFoundError: the planner has written none.
        ValueError: a key is missing, unknown or of the wrong type; the message names file and key.
    """
    path = _path(folder, stage)
    try:
        found = read_json(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"nothing says what stage {stage!r} is; let experiments.run plan it first", str(path)
        ) from error
    schema = found.pop("schema", None)
    if schema != _SCHEMA:
        raise ValueError(f"{path}: schema = {schema!r}; this version reads {_SCHEMA}")
    try:
        return StageCommand(**found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {str(error).replace('StageCommand.__init__()', 'the command')}") from error


def _path(folder: Path, stage: str) -> Path:
    return folder / f"stage.{stage}.json"
