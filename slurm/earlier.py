"""What earlier submissions of a study still have in SLURM's queue."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.slurm_queue import jobs_with_comment, living
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
    """

    stages: dict[Key, tuple[str, str]] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)


def look_up(root: Path) -> Queued:
    """What will be done without a new submission, as far as SLURM can be asked.

    Args:
        root: the experiment's folder.
    """
    found = Queued()
    for submission in submissions(root):
        jobs = [job for job in known_jobs(submission) if job["kind"] != "report"]
        alive = living([job["job"] for job in jobs]) or {}
        for job in jobs:
            elements = {name: one for name, one in alive.items() if name.partition("_")[0] == job["job"]}
            if not elements:
                continue
            found.jobs.append(job["job"])
            for line in read_list(submission, job["array"]):
                element = f"{job['job']}_{line['index']}"
                if element in elements and elements[element].reason == _HOPELESS:
                    found.hopeless.append(element)
                elif element in elements:
                    for stage in line["stages"]:
                        key = (str(root / stage["folder"]), stage["stage"])
                        found.stages[key] = (stage["command"]["stage_hash"], element)
    return found


def known_jobs(submission: Path) -> list[dict[str, Any]]:
    """The jobs of a submission.

    A driver that was killed may have queued an array and not have written down its id: the array's comment
    tells.
    """
    jobs = read_jobs(submission)
    lost = [job for job in jobs if job["job"] is None]
    if lost:
        comments = jobs_with_comment(f"{submission.name}/") or {}
        ids = {comment.partition("/")[2]: job for job, comment in comments.items()}
        for job in lost:
            job["job"] = ids.get(job["array"])
        jobs = [job for job in jobs if job["job"] is not None]
        write_jobs(submission, jobs)
    return jobs
