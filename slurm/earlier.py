"""What earlier submissions of a study still have in SLURM's queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.slurm_queue import QueuedElement, jobs_with_comment, living
from slurm.submission import read_jobs, read_list, submissions, write_jobs
from slurm.tasks import Key

_HOPELESS = "DependencyNeverSatisfied"


@dataclass
class Queued:
    """Living jobs of a study.

    Attributes:
        stages: folder and stage -> hash of the output and id of the element that will make it.
        jobs: ids of all arrays and jobs, but for those that build a report.
        hopeless: elements that can never start, because something that they wait for has failed.
        report: whether the newest submission that still has work to do has a report to come after it.
    """

    stages: dict[Key, tuple[str, str]] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)
    report: bool = False


def look_up(root: Path, *, repair: bool = True) -> Queued:
    """What will be done without a new submission, as far as SLURM can be asked.

    Args:
        root: the experiment's folder.
        repair: write down ids that a driver that was killed could not.
    """
    found = Queued()
    for submission in submissions(root):
        known = known_jobs(submission, repair=repair)
        alive: dict[str, dict[str, QueuedElement]] = {}
        for name, element in (living([job["job"] for job in known]) or {}).items():
            alive.setdefault(name.partition("_")[0], {})[name] = element
        jobs = [job for job in known if job["kind"] != "report" and job["job"] in alive]
        if jobs:
            found.report = any(job["kind"] == "report" and job["job"] in alive for job in known)
        for job in jobs:
            found.jobs.append(job["job"])
            _add_elements(found, root, submission, job, alive[job["job"]])
    return found


def _add_elements(
    found: Queued,
    root: Path,
    submission: Path,
    job: Mapping[str, Any],
    elements: Mapping[str, QueuedElement],
) -> None:
    for line in read_list(submission, job["array"]):
        element = f"{job['job']}_{line['index']}"
        if element in elements and elements[element].reason == _HOPELESS:
            found.hopeless.append(element)
        elif element in elements:
            for stage in line["stages"]:
                key = (str(root / stage["folder"]), stage["stage"])
                found.stages[key] = (stage["command"]["stage_hash"], element)


def known_jobs(submission: Path, *, repair: bool = True) -> list[dict[str, Any]]:
    """The jobs of a submission that have an id.

    A driver that was killed may have queued an array and not have written down its id: the array's comment
    tells.

    Args:
        submission: its folder.
        repair: write down what was found so.
    """
    jobs = read_jobs(submission)
    if all(job["job"] is not None for job in jobs):
        return jobs
    comments = jobs_with_comment(f"{submission.name}/")
    ids = {comment.partition("/")[2]: job for job, comment in (comments or {}).items()}
    found = [{**job, "job": job["job"] or ids.get(job["array"])} for job in jobs]
    found = [job for job in found if job["job"] is not None]
    if repair and comments is not None:  # where SLURM has not answered, the next driver asks again
        write_jobs(submission, found)
    return found
