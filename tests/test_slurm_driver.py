"""Drivers that are killed or meet, odd paths, and the local runner beside the queue; on a real cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_local
import slurm_study
import study
from manifests import changed, write
from test_study_outputs import lines, manifest

from experiments.loading import load

pytestmark = [pytest.mark.slow, pytest.mark.slurm, slurm_study.needs_slurm]

MAX_ARRAY_SIZE = 5
RESOURCES = "resources: {rules: [{when: {method: dpo}, set: {gpus: 2}}]}\n"
# A driver is killed at its third call (the fourth, with the one that queues the driver): before SLURM has
# heard of it, or before the id is written.
SLOW_SBATCH = """#!/bin/bash
echo call >> "{folder}/calls"
if [ "$(wc -l < "{folder}/calls")" = 4 ]; then
    {real} >/dev/null
    echo "$PPID $$" > "{folder}/pids.new"; mv "{folder}/pids.new" "{folder}/pids"
    exec sleep 100
fi
exec "{sbatch}" "$@"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_local.Cluster]:
    with slurm_local.Cluster(gpus=4, max_array_size=MAX_ARRAY_SIZE) as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slurm_study.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def ends_with_an_empty_queue(cluster: slurm_local.Cluster) -> Iterator[None]:
    yield
    for job in {job.partition("_")[0] for job, _, _ in cluster.queue()}:
        cluster.run("scancel", job)
    cluster.wait_until_empty(60)


def hold(folder: Path) -> str:
    """A site's file with which nothing starts before it is released."""
    path = folder / "hold.yaml"
    path.write_text("extra: [--hold]\n")
    return str(path)


def release(cluster: slurm_local.Cluster, *jobs: str) -> None:
    for job in jobs or sorted({job.partition("_")[0] for job, _, _ in cluster.queue()}):
        cluster.run("scontrol", "release", job)


def queued_stages(cluster: slurm_local.Cluster, folder: Path) -> Counter[tuple[str, str]]:
    """How many elements in the queue would do each stage."""
    comments = cluster.run("squeue", "-h", "-r", "-o", "%K|%k", check=True).stdout.splitlines()
    found: Counter[tuple[str, str]] = Counter()
    for index, _, comment in (line.partition("|") for line in comments):
        submission, _, array = comment.partition("/")
        if array in ("", "report"):
            continue
        path = folder / "runs" / "micro" / "submissions" / submission / f"{array}.jsonl"
        elements = {e["index"]: e["stages"] for e in map(json.loads, path.read_text().splitlines())}
        found.update((stage["folder"], stage["stage"]) for stage in elements[int(index)])
    return found


def all_stages(folder: Path) -> Counter[tuple[str, str]]:
    plan = json.loads((folder / "runs" / "micro" / "plan.json").read_text())
    return Counter((job["folder"], job["stage"]) for job in plan["jobs"])


# -- drivers


@pytest.mark.parametrize("queues", [False, True], ids=["before SLURM took it", "before its id was written"])
def test_where_a_driver_was_killed_between_two_calls_the_next_queues_the_rest(
    cluster: slurm_local.Cluster, tmp_path: Path, queues: bool
) -> None:
    study.write_manifest(tmp_path, slurm_study.NANO)
    sbatch = shutil.which("sbatch", path=cluster.environment["PATH"])
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    real = f'"{sbatch}" "$@"' if queues else ":"
    wrapper.write_text(SLOW_SBATCH.format(folder=tmp_path, real=real, sbatch=sbatch))
    wrapper.chmod(0o755)
    site = hold(tmp_path)
    path = f"{wrapper.parent}{os.pathsep}{cluster.environment['PATH']}"
    driver = slurm_study.sbatch(cluster, tmp_path, "--site", site, PATH=path)
    pids = tmp_path / "pids"
    slurm_study.until(pids.exists, 90)
    for pid in map(int, pids.read_text().split()):
        os.kill(pid, signal.SIGKILL)
    slurm_study.until(lambda: all(job != driver for job, _, _ in cluster.queue()))
    before = {job for job, _, _ in cluster.queue()}
    assert len({job.partition("_")[0] for job in before}) == 2 + queues
    said = slurm_study.drive(cluster, tmp_path, "--site", site)
    found = queued_stages(cluster, tmp_path)
    assert found == all_stages(tmp_path), said
    assert before <= {job for job, _, _ in cluster.queue()}
    assert slurm_study.drive(cluster, tmp_path, "--site", site).count("nothing was queued") == 1
    assert queued_stages(cluster, tmp_path) == found


def test_of_two_drivers_at_once_one_queues_and_the_other_sees_it(
    cluster: slurm_local.Cluster, tmp_path: Path
) -> None:
    study.write_manifest(tmp_path, slurm_study.NANO)
    drivers = [slurm_study.sbatch(cluster, tmp_path, "--site", hold(tmp_path)) for _ in range(2)]
    slurm_study.until(lambda: not {job for job, _, _ in cluster.queue()} & {*drivers}, 120)
    said = [(tmp_path / f"grid-{driver}.log").read_text() for driver in drivers]
    assert sum("nothing was queued" in each for each in said) == 1, said
    assert queued_stages(cluster, tmp_path) == all_stages(tmp_path)
    names = cluster.run("squeue", "-h", "-o", "%j", check=True).stdout.split()
    assert names.count("micro.report") == 1


def test_submissions_that_are_deleted_while_queued_are_mended_and_what_runs_is_not_queued_again(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo.s1*")
    slurm_study.drive(cluster, folder, "--site", hold(folder))
    shutil.rmtree(folder / "runs" / "micro" / "submissions")
    release(cluster)
    cluster.wait_until_empty(60)
    assert not slurm_study.status(folder, "dpo.s1", "train")
    assert "0 queued before, 3 to queue" in slurm_study.drive(cluster, folder)
    element = f"{slurm_study.jobs(folder)['train-1']}_0"
    slurm_study.until(lambda: (element, "RUNNING", "None") in cluster.queue(), 60)
    assert "nothing was queued" in slurm_study.drive(cluster, folder)
    cluster.wait_until_empty(240)
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.outcomes(folder, "dpo.s1", "train") == ["done"]
    assert not slurm_study.left_over(folder)


# -- beside one another


def test_the_local_runner_and_the_queue_finish_one_study_together(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo*")
    slurm_study.drive(cluster, folder)
    said = study.run(folder)  # exit 0
    cluster.wait_until_empty(240)
    assert study.scores(folder) == study.scores(finished), said
    assert set(study.attempts(folder).values()) == {1}
    assert not slurm_study.left_over(folder)


def test_cells_on_one_node_have_gpus_and_ports_of_their_own(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo*")
    study.write_manifest(folder, slurm_study.NANO + RESOURCES)
    slurm_study.finish(cluster, folder)
    found = [slurm_study.records(folder, cell, "train") for cell in ("dpo.s1", "dpo.s2")]
    assert [[record["outcome"] for record in records] for records in found] == [["done"], ["done"]]
    (first,), (second,) = found
    assert max(first["start"], second["start"]) < min(first["end"], second["end"]), "not at the same time"
    assert first["gpus"] == second["gpus"] == 2
    headers = [line for line in slurm_study.logs(folder).splitlines() if "GPUs" in line and "dpo" in line]
    gpus = [line.partition("GPUs ")[2].split()[0].split(",") for line in headers]
    assert sorted(sum(gpus, [])) == ["0", "1", "2", "3"], headers
    assert not slurm_study.left_over(folder)


# -- places


def test_a_project_in_a_folder_with_blanks_serves_a_call_from_elsewhere_on_a_cluster_of_small_arrays(
    cluster: slurm_local.Cluster, tmp_path: Path
) -> None:
    project, place = tmp_path / "the project", tmp_path / "a place of mine"
    place.mkdir()
    for name in ("slurm", "experiments", "po", "eval", "reports"):
        shutil.copytree(slurm_study.ROOT / name, project / name)
    texts = [lines(place / f"o{number}.txt", ["eins", "zwo", str(number)]) for number in range(12)]
    document = changed(**manifest(place, {f"o{number}": text for number, text in enumerate(texts)}))
    given = write(place, document, "my study.yaml")
    (place / "bin").mkdir()
    sacct = place / "bin" / "sacct"
    sacct.write_text(f'#!/bin/sh\ntouch "{place}/sacct was called"\nexit 1\n')
    sacct.chmod(0o755)
    environment = cluster.environment | {
        "GRID_ROOT": str(project),
        "GRID_PYTHON": sys.executable,
        "PATH": f"{sacct.parent}{os.pathsep}{cluster.environment['PATH']}",
    }
    command = [
        "sbatch",
        "--parsable",
        str(project / "slurm" / "grid.sh"),
        "my study.yaml",
        "--runs",
        "the runs, 50%j",
    ]
    command += ["--site", hold(place)]
    called = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    assert called.returncode == 0, called.stderr
    driver = called.stdout.strip()
    slurm_study.until(lambda: all(job != driver for job, _, _ in cluster.queue()), 60)
    said = (place / f"grid-{driver}.log").read_text()
    (submission,) = (place / "the runs, 50%j" / "small" / "submissions").iterdir()
    entries = json.loads((submission / "jobs.json").read_text())["jobs"]
    sizes = [(entry["array"], entry["size"]) for entry in entries]
    chunks = [("generate-1", 5), ("generate-2", 5), ("generate-3", 2)]
    assert sizes == [("prepare-1", 1), *chunks, ("report", 1)], said
    assert f"PYTHONPATH='{project}'" in (submission / "job.sh").read_text()
    release(cluster)
    cluster.wait_until_empty(400)
    loaded = load(given, place / "the runs, 50%j")
    states = {
        (job.stage, json.loads((job.folder / f"status.{job.stage}.json").read_text())["state"])
        for job in loaded.graph.jobs.values()
    }
    assert states == {("prepare", "done"), ("generate", "done"), ("score", "done")}
    assert (place / "the runs, 50%j" / "small" / "report" / "report.html").is_file()
    assert not (place / "sacct was called").exists()
    assert len(list((submission / "logs").glob("generate-*/*.log"))) == 12
