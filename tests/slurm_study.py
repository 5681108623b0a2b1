"""A study of seconds on a SLURM cluster of its own; for the tests that disturb one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_local
import study

ROOT = Path(__file__).parents[1]
needs_slurm = pytest.mark.skipif(not slurm_local.is_installed(), reason="SLURM (slurm-wlm) is not installed")

NANO = study.MANIFEST.replace("\n  cpo: {from: sft, params: {beta: 0.1}}", "")


def finished(folder: Path, manifest: str = NANO) -> Path:
    """A study that the local runner has done to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    study.write_manifest(folder, manifest)
    study.run(folder)
    return folder


def copy_without(done: Path, folder: Path, *patterns: str) -> Path:
    """A finished study of which what matches (below ``runs/micro``) has not been done yet."""
    shutil.copytree(done, folder)
    for pattern in patterns:
        found = sorted((folder / "runs" / "micro").glob(pattern))
        assert found, f"nothing matches {pattern}"
        for path in found:
            shutil.rmtree(path)
    return folder


def sbatch(cluster: slurm_local.Cluster, folder: Path, *options: str, **environment: str) -> str:
    """``sbatch slurm/grid.sh``; the id of the driver's job."""
    command = ["sbatch", "--parsable", f"--output={folder}/grid-%j.log", str(ROOT / "slurm" / "grid.sh")]
    command += [str(folder / "micro.yaml"), "--runs", str(folder / "runs"), *options]
    added = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GRID_PYTHON": sys.executable, **environment}
    done = subprocess.run(
        command, env=cluster.environment | added, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def drive(cluster: slurm_local.Cluster, folder: Path, *options: str, **environment: str) -> str:
    """``sbatch slurm/grid.sh`` and the end of the driver, whose words are returned."""
    job = sbatch(cluster, folder, *options, **environment)
    until(lambda: all(queued.split("_")[0] != job for queued, _, _ in cluster.queue()), 60)
    return (folder / f"grid-{job}.log").read_text()


def finish(cluster: slurm_local.Cluster, folder: Path, *options: str) -> str:
    """``sbatch slurm/grid.sh`` and the end of all that it has queued."""
    said = drive(cluster, folder, *options)
    cluster.wait_until_empty(240)
    return said


def jobs(folder: Path) -> dict[str, str]:
    """Array -> id of its job, of the newest submission."""
    newest = max((folder / "runs" / "micro" / "submissions").iterdir())
    return {job["array"]: job["job"] for job in json.loads((newest / "jobs.json").read_text())["jobs"]}


def logs(folder: Path) -> str:
    """All that the jobs have said."""
    paths = sorted((folder / "runs" / "micro" / "submissions").glob("*/logs/*/*.log"))
    return "\n".join(f"== {path}\n{path.read_text()}" for path in paths)


def status(folder: Path, cell: str, stage: str) -> dict[str, object]:
    """``status.<stage>.json`` of the only cell whose name has ``cell`` in it; empty if there is none."""
    paths = list((folder / "runs" / "micro").glob(f"cells/*{cell}*/status.{stage}.json"))
    return json.loads(paths[0].read_text()) if paths else {}


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.05)


def left_over(folder: Path) -> list[str]:
    """Processes that have to do with the folder and still run."""
    return [line for line in _command_lines() if str(folder) in line]


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if int(path.parent.name) == os.getpid():
            continue
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended


def trained_steps(folder: Path, cell: str) -> int:
    """Optimizer steps that all attempts at a cell's training have done together, by its log."""
    log = next((folder / "runs" / "micro").glob(f"cells/*{cell}*/logs/train.log")).read_text()
    return len(re.findall(r"'loss'", log))


def elements(folder: Path) -> dict[str, str]:
    """Cell (as in ``dpo.s1``) -> id of the element that begins its work, of the newest submission."""
    newest = max((folder / "runs" / "micro" / "submissions").iterdir())
    found: dict[str, str] = {}
    for array, job in jobs(folder).items():
        for line in (newest / f"{array}.jsonl").read_text().splitlines() if array != "report" else ():
            element = json.loads(line)
            name = ".".join(element["label"].rpartition(".numbers.")[2].split(".")[:2])
            found.setdefault(name, f"{job}_{element['index']}")
    return found


def facts(cluster: slurm_local.Cluster, job: str) -> dict[str, str]:
    """What SLURM knows of a job or element: ``JobState``, ``Restarts``, ``Reason`` and more."""
    text = cluster.run("scontrol", "show", "job", job, check=True).stdout
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def records(folder: Path, cell: str, stage: str) -> list[dict[str, object]]:
    """What is on record of the attempts at a stage of the only cell whose name has ``cell`` in it."""
    (path,) = (folder / "runs" / "micro").glob(f"cells/*{cell}*/attempts.jsonl")
    return [found for found in map(json.loads, path.read_text().splitlines()) if found["stage"] == stage]


def outcomes(folder: Path, cell: str, stage: str) -> list[object]:
    """How the attempts at a stage ended, in their order."""
    return [found["outcome"] for found in records(folder, cell, stage)]


def trained_tokens(folder: Path, cell: str) -> int:
    """Tokens that all attempts at a cell's training have gone through; those that were killed are unknown."""
    return sum(int(str(found["tokens"] or 0)) for found in records(folder, cell, "train"))


def step(folder: Path, cell: str) -> int:
    """The step at which a cell's training is, by what it reports now and then."""
    paths = list((folder / "runs" / "micro").glob(f"cells/*{cell}*/progress.train.json"))
    return int(json.loads(paths[0].read_text())["step"]) if paths else 0


def log_of(folder: Path, element: str) -> str:
    """What an element of the newest submission has said; empty before it has."""
    job, _, index = element.partition("_")
    newest = max((folder / "runs" / "micro" / "submissions").iterdir())
    array = next(name for name, one in jobs(folder).items() if one == job)
    path = newest / "logs" / array / f"{index}.log"
    return path.read_text() if path.exists() else ""


_PLUG = """\
import importlib.machinery, os, sys, time
from pathlib import Path

class Finder:
    def find_spec(self, name, path, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            CHANGES[name](module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def plug(folder: Path, changes: str) -> str:
    """A folder for PYTHONPATH with which every process changes modules right after it has loaded them.

    Args:
        folder: of the study.
        changes: Python; defines ``CHANGES``, module's name -> function of the module.
    """
    place = folder / "plug"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(_PLUG + changes)
    return str(place)


# Each micro-batch takes STEP_S longer, so that there is time to hit a training.
SLOW_STEPS = """
def slow_steps(module):
    quick = module.MethodTrainer.training_step
    def training_step(self, *args, **options):
        time.sleep(float(os.environ["STEP_S"]))
        return quick(self, *args, **options)
    module.MethodTrainer.training_step = training_step

CHANGES = {"po.training.trainer": slow_steps}
"""
