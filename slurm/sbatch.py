"""Calls of sbatch: options of an array, the ids that come back, and what SLURM says of its limits."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.schema_resources import Limits, Slurm
from slurm.arrays import Array
from slurm.submission import log_path
from slurm.tasks import seconds_of

_TIMEOUT_S = 120
_USUAL_MAX_ARRAY_SIZE = 1001
_KEPT = {f"SBATCH_{word}" for word in ("ACCOUNT", "PARTITION", "QOS", "CONSTRAINT", "RESERVATION")}
_KEPT.add("SLURM_CONF")


class SubmissionError(RuntimeError):
    """SLURM would not take a job."""


def options(array: Array, ids: Mapping[str, str], submission: Path, study: str, settings: Slurm) -> list[str]:
    """Options of sbatch for an array.

    Args:
        array: what is queued.
        ids: array's name -> id of its job, of those that were queued before.
        submission: its folder.
        study: name of the experiment.
        settings: of site and manifest.
    """
    indices = _ranges(sorted(array.tasks))
    found = _common(array.name, array.limits, submission, study, settings)
    found += [f"--array={indices}%{array.max_parallel}", f"--output={_log(submission, array.name, '%a')}"]
    return found + _dependency(array, ids, settings)


def report_options(
    limits: Limits, ids: Sequence[str], submission: Path, study: str, settings: Slurm
) -> list[str]:
    """Options of sbatch for the job that builds the report when all others have ended, however they did."""
    found = _common("report", limits, submission, study, settings)
    found.append(f"--output={_log(submission, 'report', '0')}")
    return found + ([f"--dependency=afterany:{':'.join(ids)}"] if ids else [])


def _common(name: str, limits: Limits, submission: Path, study: str, settings: Slurm) -> list[str]:
    found = [
        f"--job-name={study}.{name}",
        f"--comment={submission.name}/{name}",
        f"--chdir={Path.cwd()}",
        "--open-mode=append",
        "--requeue" if settings.requeue else "--no-requeue",
        f"--nodes={limits.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={limits.cpus}",
        f"--signal=B:USR1@{_lead(limits.time, settings.signal_lead)}",
    ]
    found += [f"--mem={limits.mem}"] if limits.mem else []
    found += [f"--time={limits.time}"] if limits.time else []
    if limits.gpus:
        kind = f"{settings.gpu_type}:" if settings.gpu_type else ""
        asked = "--gres=gpu:" if settings.gpu_option == "gres" else "--gpus-per-node="
        found.append(f"{asked}{kind}{limits.gpus}")
    account = settings.account or os.environ.get("SLURM_JOB_ACCOUNT")  # the driver's, whoever pays for that
    places = {"partition": settings.partition, "account": account, "qos": settings.qos}
    places |= {"constraint": settings.constraint, "reservation": settings.reservation}
    found += [f"--{key}={value}" for key, value in places.items() if value]
    return found + settings.extra


def _log(submission: Path, array: str, index: str) -> str:
    """The log in sbatch's words, for which ``%`` begins a pattern."""
    return str(log_path(submission, array, "\0")).replace("%", "%%").replace("\0", index)


def _lead(time: str | None, lead: int) -> int:
    """Seconds before the limit at which a job is told; of a short one no more than a quarter."""
    limit = seconds_of(time) if time else 0
    return max(1, min(lead, limit // 4)) if limit else lead


def _dependency(array: Array, ids: Mapping[str, str], settings: Slurm) -> list[str]:
    """Without the cancelling of what can never start, everything starts and finds its parent missing."""
    strict = settings.kill_on_invalid_dep
    # one bad data set must not cancel the cells of all others: a preparation only has to end
    loose = [other for other, _ in array.needs if other.kind == "prepare"]
    needs = [f"{ids[other.name]}_{index}" for other, index in array.needs if other not in loose]
    needs += array.queued
    parts = [f"afterany:{':'.join(ids[other.name] for other in loose)}"] if loose else []
    if needs:
        parts.append(f"{'afterok' if strict else 'afterany'}:{':'.join(needs)}")
    if array.follows is not None:
        parts.append(f"{'aftercorr' if strict else 'afterany'}:{ids[array.follows.name]}")
    if array.after is not None:
        parts.append(f"afterany:{ids[array.after.name]}")
    if not parts:
        return []
    kill = ["--kill-on-invalid-dep=yes"] if strict else []
    return [f"--dependency={','.join(parts)}", *kill]


def _ranges(indices: Sequence[int]) -> str:
    """``0-3,7`` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def clean_environment() -> dict[str, str]:
    """This process's environment without what its own job, if it is one, has put there.

    An inner job would take the driver's memory and CPU binding for its own. What names the cluster stays, and
    so do the user's own defaults of sbatch that say who pays and where it runs.
    """
    own = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_")
    return {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(own)}


def submit(command: Sequence[str]) -> str:
    """Runs sbatch and returns the id of the job.

    Raises:
        SubmissionError: sbatch is missing or refuses; with what it said.
    """
    done = _call(["sbatch", "--parsable", *command])
    job = done.stdout.strip().partition(";")[0]
    if done.returncode or not job.isdigit():
        raise SubmissionError((done.stderr or done.stdout).strip() or f"sbatch ended with {done.returncode}")
    return job


def cancel(jobs: Sequence[str]) -> str | None:
    """Cancels jobs; returns what scancel complained of, or None."""
    if not jobs:
        return None
    try:
        done = _call(["scancel", *jobs])
    except SubmissionError as error:
        return str(error)
    return done.stderr.strip() or None if done.returncode else None


def max_array_size() -> int | None:
    """Elements that an array may have here, one above the highest index; None if SLURM cannot be asked."""
    try:
        done = _call(["scontrol", "show", "config"])
    except SubmissionError:
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found.group(1)) if found and not done.returncode else None


def array_size(settings: Slurm) -> int:
    """Elements of one array."""
    allowed = max_array_size() or _USUAL_MAX_ARRAY_SIZE
    return max(1, min(settings.max_array_size or 1000, allowed))


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        message = f"{command[0]} is not on this machine; submit where SLURM is, or use experiments.run"
        raise SubmissionError(message) from error
    except subprocess.TimeoutExpired as error:
        raise SubmissionError(f"{command[0]} has not answered in {_TIMEOUT_S} s") from error
