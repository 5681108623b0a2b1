"""What was damaged from outside is set aside or forgotten, so that its stage can be done again."""

from collections.abc import Callable

from experiments.job import Job
from experiments.stage_status import EffectiveState, effective_state, read_status

# Stages that take their first artefact as the sign that all others are there; the rest look at each file.
_MARKED = frozenset({"prepare", "pairs", "reference", "train"})


def state_to_start_from(job: Job, say: Callable[[str], None]) -> EffectiveState:
    """The state of a job's stage; a status that cannot be read is set aside and counts as stale.

    Args:
        job: the stage.
        say: shows a line to the user.
    """
    try:
        return effective_state(job.folder, job.stage, job.stage_hash)
    except ValueError as error:
        path = job.folder / f"status.{job.stage}.json"
        path.replace(path.with_name(f"{path.name}.damaged"))
        say(f"{error}; set aside as {path.name}.damaged")
        return "stale"


def forget_damaged_result(job: Job) -> None:
    """Removes the marker of a stage that was done and has lost or changed files since.

    With its marker the stage would find itself done and do nothing.
    """
    if job.stage not in _MARKED:
        return
    status = read_status(job.folder, job.stage)
    if status is not None and status.state == "done" and status.stage_hash == job.stage_hash:
        (job.folder / job.artefacts[0]).unlink(missing_ok=True)
