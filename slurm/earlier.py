"""What earlier submissions of a study still have in SLURM's queue, as a driver needs it."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.submissions import read_queue
from slurm.tasks import Key


@dataclass
class Queued:
    """Living jobs of a study.

    Attributes:
        answered: whether SLURM could be asked; if not, nothing is known.
        faults: files of submissions that could not be read, so that what they tell is not known.
        stages: folder and stage -> hash of the output and id of the element that will make it.
        jobs: ids of all arrays, but for those jobs that build a report.
        hopeless: elements that can never start, because something that they wait for has failed.
        ending: whether an element was told to end, or goes back to the queue: which is not known yet.
        report: whether the newest submission that still has work to do has a report to come after it.
    """

    answered: bool = True
    faults: tuple[str, ...] = ()
    stages: dict[Key, tuple[str, str]] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)
    ending: bool = False
    report: bool = False


def look_up(root: Path) -> Queued:
    """What will be done without a new submission.

    Args:
        root: the experiment's folder.
    """
    queue = read_queue(root)
    found = Queued(queue.answered, queue.faults)
    if not queue.answered:
        return found
    at_work = [array for array in queue.arrays if array.kind != "report"]
    found.jobs = [array.job for array in at_work]
    found.ending = any(element.state == "COMPLETING" for element in queue.elements)
    found.hopeless = [element.job for element in queue.stuck]
    if at_work:
        newest = max(array.folder for array in at_work)
        found.report = any(array.kind == "report" and array.folder == newest for array in queue.arrays)
    for element in queue.elements:
        for (folder, stage), digest in zip(element.stages, element.hashes, strict=True):
            found.stages[str(root / folder), stage] = (digest, element.job)
    return found
