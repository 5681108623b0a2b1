"""From a study to queued jobs: what is open, which arrays do it, in what order they are queued."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.atomic import write_text
from experiments.claim import EXIT_HELD, Claim
from experiments.job import Job
from experiments.loading import Loaded
from experiments.schema_resources import Slurm
from experiments.slurm_queue import jobs_with_comment
from experiments.stage_status import EffectiveState, effective_state, reset_status
from slurm import sbatch
from slurm.arrays import Array, make_arrays
from slurm.earlier import Queued, look_up
from slurm.script import job_script
from slurm.submission import FOLDER, log_path, new_submission, write_jobs, write_list
from slurm.tasks import Key, make_tasks

_WAIT_FOR_DRIVER_S = 120.0
_HEARTBEAT_S = 5.0  # a driver that dies on another node is known to be dead before the next gives up
_WAIT_FOR_ENDING_S, _ASK_AGAIN_S = 90.0, 6.0
_NO_ANSWER = (
    "error: squeue does not answer, and earlier submissions of this study may be in the queue; nothing was "
    "queued. Start the same command again later, or with --ignore-queue"
)
_GIVEN_UP = frozenset({"failed", "cancelled"})


@dataclass(frozen=True)
class Request:
    """What is to be queued."""

    loaded: Loaded
    jobs: Sequence[Job]
    settings: Slurm
    retry_failed: bool = False
    ignore_queue: bool = False

    @property
    def root(self) -> Path:
        """``runs/<name>``, absolute: jobs may start elsewhere."""
        return self.loaded.root.absolute()

    @property
    def python(self) -> str:
        """Interpreter of the jobs."""
        return self.settings.python or sys.executable


@dataclass
class Work:
    """What a submission holds.

    Attributes:
        arrays: those that others wait for first.
        states: how many of the stages asked for are in which state.
        given_up: jobs that have failed for good or were cancelled.
        blocked: how many jobs need one of those.
        n_queued: stages that are in the queue already.
    """

    arrays: list[Array]
    states: Counter[str]
    given_up: list[Job] = field(default_factory=list)
    blocked: int = 0
    n_queued: int = 0

    def lines(self) -> list[str]:
        """For people."""
        total = sum(self.states.values())
        n_open = sum(len(task.jobs) for array in self.arrays for task in array.tasks.values())
        found = [
            f"{total} stages: {self.states['done']} done, {self.n_queued} queued before, {n_open} to queue"
        ]
        for array in self.arrays:
            many = f"{len(array.tasks)} element{'s' if len(array.tasks) > 1 else ''}"
            stages = Counter(job.stage for task in array.tasks.values() for job in task.jobs)
            what = ", ".join(f"{count} {stage}" for stage, count in stages.items())
            found.append(f"  {array.name:<14} {many:<16} {what}")
        if self.given_up:
            found.append(
                f"{len(self.given_up)} failed or were cancelled and are left out, {self.blocked} need them:"
            )
            found += [f"  {job.label}" for job in self.given_up[:10]]
            found.append("  look: python -m experiments.status; try again: --retry-failed")
        return found


def show(request: Request) -> int:
    """Prints all that ``submit`` would write and call; changes nothing."""
    queued = look_up(request.root)
    if not queued.answered:
        sys.stderr.write(f"warning: {_NO_ANSWER}\n")
    work = plan_work(request, queued)
    submission = request.root / FOLDER / "DRY-RUN"
    out = sys.stdout
    out.write(
        "\n".join([f"{request.loaded.manifest.name}: nothing is queued (--dry-run)", *work.lines()]) + "\n"
    )
    out.write(f"\n# {submission}/job.sh\n{job_script(submission, request.python, request.settings)}\n")
    ids = {array.name: f"ID_OF_{array.name.upper()}" for array in work.arrays}
    for array in work.arrays:
        command = _command(
            sbatch.options(array, ids, submission, _name(request), request.settings), submission
        )
        out.write(f"# {array.name}\n{shlex.join(['sbatch', *command, array.name])}\n")
        for index, task in array.tasks.items():
            out.write(f"#   {index}: {task.label}\n")
    command = _command(_report(request, [*queued.jobs, *ids.values()], submission), submission)
    out.write(f"# report\n{shlex.join(['sbatch', *command, 'report'])}\n")
    return 0


def submit(request: Request) -> int:
    """Queues what is open, under a claim of its own: two drivers would queue everything twice."""
    request.root.mkdir(parents=True, exist_ok=True)
    claim = Claim(request.root, "submit", heartbeat_s=_HEARTBEAT_S)
    if not _acquire(claim):
        at_work = f"another driver is at work on this study ({claim.held_by}); nothing was queued"
        sys.stderr.write(f"{at_work}. If that process is gone, delete {claim}\n")
        return EXIT_HELD
    try:
        request.loaded.write_plan()
        if request.retry_failed:
            _forget_failures(request.jobs)
        queued = Queued() if request.ignore_queue else _settled(request.root)
        for fault in queued.faults:
            sys.stderr.write(f"warning: {fault}\n")
        if not queued.answered:
            sys.stderr.write(f"{_NO_ANSWER}\n")
            return 1
        sbatch.cancel(queued.hopeless)
        return _submit(request, plan_work(request, queued), queued)
    finally:
        claim.release()


def plan_work(request: Request, queued: Queued) -> Work:
    """The arrays that do what is neither done nor queued."""
    states = {job.key: _state(job) for job in request.jobs}
    waiting: dict[Key, str] = {}
    lost: set[Key] = set()
    anew: set[Key] = set()
    given_up = []
    todo = []
    for job in request.jobs:
        digest, element = queued.stages.get(_absolute(request, job), ("", ""))
        if states[job.key] == "done":
            continue
        if states[job.key] in _GIVEN_UP and not request.retry_failed:
            given_up.append(job)
            lost.add(job.key)
        elif any(needed.key in lost for needed in job.needs):
            lost.add(job.key)
        elif digest == job.stage_hash and not any(needed.key in anew for needed in job.needs):
            waiting[job.key] = element
        else:  # an element that is queued would not wait for what is queued only now
            todo.append(job)
            anew.add(job.key)
    tasks = make_tasks(todo, fuse=request.settings.fuse, queued=waiting)
    size = sbatch.array_size(request.settings)
    arrays = make_arrays(tasks, max_size=size, max_parallel=request.settings.max_parallel)
    return Work(arrays, Counter(states.values()), given_up, len(lost) - len(given_up), len(waiting))


def _submit(request: Request, work: Work, queued: Queued) -> int:
    sys.stderr.write("\n".join([f"{_name(request)} in {request.root}", *work.lines()]) + "\n")
    if not work.arrays and queued.report:
        sys.stderr.write("all that is missing is in the queue already; nothing was queued\n")
        return 0
    submission = new_submission(request.root)
    write_text(submission / "manifest.yaml", request.loaded.path.read_text(encoding="utf-8"))
    write_text(submission / "job.sh", job_script(submission, request.python, request.settings))
    jobs: list[dict[str, Any]] = []
    name = "report"
    try:
        ids: dict[str, str] = {}
        for array in work.arrays:
            name = array.name
            write_list(submission, array, request.root, request.settings.max_attempts)
            command = sbatch.options(array, ids, submission, _name(request), request.settings)
            entry = {"array": array.name, "kind": array.kind, "size": len(array.tasks)}
            ids[array.name] = _queue(submission, jobs, entry, command)
        name = "report"
        log_path(submission, name, 0).parent.mkdir(parents=True)
        command = _report(request, [*queued.jobs, *ids.values()], submission)
        _queue(submission, jobs, {"array": "report", "kind": "report", "size": 1}, command)
    except (sbatch.SubmissionError, OSError) as error:
        return _take_back(submission, jobs, name, error)
    watch = shlex.join(["python", "-m", "experiments.status", str(request.loaded.root)])
    sys.stderr.write(f"logs and ids: {submission}\nwatch: {watch}\n")
    return 0


def _queue(
    submission: Path, jobs: list[dict[str, Any]], entry: Mapping[str, Any], command: Sequence[str]
) -> str:
    """Queues one array; its id is written down before the next is queued."""
    words = [*_command(command, submission), entry["array"]]
    with open(submission / "commands.sh", "a", encoding="utf-8") as file:
        file.write(shlex.join(["sbatch", *words]) + "\n")
    jobs.append({**entry, "job": None})
    write_jobs(submission, jobs)  # if this process ends now, the next driver knows what to look for
    jobs[-1]["job"] = sbatch.submit(words)
    write_jobs(submission, jobs)
    sys.stderr.write(f"queued {entry['array']}: job {jobs[-1]['job']}\n")
    return str(jobs[-1]["job"])


def _take_back(submission: Path, jobs: list[dict[str, Any]], name: str, error: Exception) -> int:
    known = {str(job["job"]) for job in jobs if job["job"] is not None}
    # one that sbatch has not told the id of, as when SLURM was too slow to answer, may be queued all the same
    ids = sorted(known.union(jobs_with_comment(f"{submission.name}/") or {}), key=int)
    complaint = sbatch.cancel(ids)
    sys.stderr.write(f"error: {name} was not queued: {error}\n")
    if complaint:
        sys.stderr.write(f"jobs {', '.join(ids)} were queued and could not be cancelled: {complaint}\n")
        return 1
    done = f"jobs {', '.join(ids)} were cancelled again" if ids else "nothing was queued before it"
    asked = f"what was asked for is the last line of {submission}/commands.sh"
    sys.stderr.write(f"{done}; {asked}. Mend that, then start the same command again\n")
    write_jobs(submission, jobs, cancelled=True)
    return 1


def _report(request: Request, ids: Sequence[str], submission: Path) -> list[str]:
    limits = request.loaded.graph.report_limits
    return sbatch.report_options(limits, ids, submission, _name(request), request.settings)


def _command(options: Sequence[str], submission: Path) -> list[str]:
    return [*options, str(submission / "job.sh")]


def _name(request: Request) -> str:
    return request.loaded.manifest.name


def _absolute(request: Request, job: Job) -> Key:
    return str(request.root / job.folder.relative_to(request.loaded.root)), job.stage


def _state(job: Job) -> EffectiveState:
    try:
        return effective_state(job.folder, job.stage, job.stage_hash)
    except ValueError:
        return "stale"  # a damaged status; the job that does the stage sets it aside


def _forget_failures(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if _state(job) in _GIVEN_UP:
            reset_status(job.folder, job.stage)


def _settled(root: Path) -> Queued:
    """What the queue holds once no element is just ending; one that was cancelled saves first."""
    end = time.monotonic() + _WAIT_FOR_ENDING_S
    while (queued := look_up(root)).ending and time.monotonic() < end:
        time.sleep(_ASK_AGAIN_S)
    return queued


def _acquire(claim: Claim) -> bool:
    """Waits a while for another driver to end: what it has queued is then seen."""
    end = time.monotonic() + _WAIT_FOR_DRIVER_S
    while not claim.acquire():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True
