"""What was damaged from outside is set aside or forgotten, so that its stage can be done again."""

from collections.abc import Callable
from pathlib import Path

from experiments.stage_command import StageCommand
from experiments.stage_status import EffectiveState, effective_state, read_status

# Stages that take their first artefact as the sign that all others are there; the rest look at each file.
_MARKED = frozenset({"prepare", "pairs", "reference", "train"})


def state_to_start_from(
    folder: Path, stage: str, stage_hash: str, say: Callable[[str], None]
) -> EffectiveState:
    """The state of a stage; a status that cannot be read is set aside and counts as stale.

    Args:
        folder: the cell's folder.
        stage: name of the stage.
        stage_hash: hash of the output that is wanted.
        say: shows a line to the user.
    """
    try:
        return effective_state(folder, stage, stage_hash)
    except ValueError as error:
        path = folder / f"status.{stage}.json"
        path.replace(path.with_name(f"{path.name}.damaged"))
        say(f"{error}; set aside as {path.name}.damaged")
        return "stale"


def forget_damaged_result(folder: Path, stage: str, command: StageCommand) -> None:
    """Removes the marker of a stage that was done and has lost or changed files since.

    With its marker the stage would find itself done and do nothing.
    """
    if stage not in _MARKED:
        return
    status = read_status(folder, stage)
    if status is not None and status.state == "done" and status.stage_hash == command.stage_hash:
        (folder / command.artefacts[0]).unlink(missing_ok=True)
