"""A whole study on a real cluster: the same scores as the local runner's, and no stage done twice."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_local
import slurm_study
import study

pytestmark = [pytest.mark.slow, pytest.mark.slurm, slurm_study.needs_slurm]

DEMO = slurm_study.ROOT / "experiments" / "manifests" / "demo.yaml"
CPO = "\n  cpo: {from: sft, params: {beta: 0.1}}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_local.Cluster]:
    with slurm_local.Cluster(munge=True) as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slurm_study.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def whole(cluster: slurm_local.Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that the cluster has done from the first stage to the report, and what the driver said."""
    folder = tmp_path_factory.mktemp("whole")
    study.write_manifest(folder, slurm_study.NANO)
    return folder, slurm_study.finish(cluster, folder)


def dry_run(cluster: slurm_local.Cluster, folder: Path, *options: str) -> list[str]:
    """Labels of the elements that would be queued."""
    command = [
        sys.executable,
        "-m",
        "slurm.submit",
        str(folder / "micro.yaml"),
        "--runs",
        str(folder / "runs"),
    ]
    done = subprocess.run(
        [*command, "--dry-run", *options],
        env=cluster.environment | {"PYTHONPATH": str(slurm_study.ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("#   ")]


def test_the_cluster_comes_to_the_local_runners_scores_with_each_stage_done_once(
    whole: tuple[Path, str], finished: Path
) -> None:
    folder, said = whole
    assert study.scores(folder) == study.scores(finished), slurm_study.logs(folder)
    assert study.attempts(folder) == dict.fromkeys(study.attempts(finished), 1), said
    assert (folder / "runs" / "micro" / "report" / "report.html").is_file()
    assert not slurm_study.left_over(folder)


def test_the_same_call_again_builds_the_report_and_does_nothing_else(
    cluster: slurm_local.Cluster, whole: tuple[Path, str]
) -> None:
    folder, _ = whole
    before = study.attempts(folder)
    said = slurm_study.finish(cluster, folder)
    assert list(slurm_study.jobs(folder)) == ["report"], said
    assert study.attempts(folder) == before


def test_a_new_metric_queues_scores_and_a_new_method_its_own_cells(
    cluster: slurm_local.Cluster, whole: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = whole
    folder = slurm_study.copy_without(folder, tmp_path / "study")
    both = slurm_study.NANO.replace("metrics: [chrf]", "metrics: [chrf, bleu]")
    study.write_manifest(folder, both)
    cells = sorted(study.scores(folder))
    assert sorted(dry_run(cluster, folder)) == [f"score {cell}" for cell in cells]
    both = study.MANIFEST.replace("metrics: [chrf]", "metrics: [chrf, bleu]")
    study.write_manifest(folder, both)
    new = [f"train+generate+score tiny.numbers.cpo.s{seed}" for seed in (1, 2)]
    assert sorted(dry_run(cluster, folder)) == sorted([f"score {cell}" for cell in cells] + new)
    before = study.attempts(folder)
    slurm_study.finish(cluster, folder, "--only", "method=cpo,method=dpo,seed=1")
    done = [Path(name) for name, count in study.attempts(folder).items() if before.get(name) != count]
    assert sorted((path.parents[1].name.split(".")[2], path.stem) for path in done) == [
        ("cpo", "generate"),
        ("cpo", "score"),
        ("cpo", "train"),
        ("dpo", "score"),
    ]
    scores = study.scores(folder)
    for cell in ("tiny.numbers.cpo.s1", "tiny.numbers.dpo.s1"):
        assert sorted(metric for metric, _ in scores[cell]) == ["bleu", "chrf"]


def test_what_is_edited_after_the_submission_changes_nothing_and_a_job_can_start_steps_of_its_own(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "the study", "cells/*dpo.s1*")
    # SLURM_* of the driver (its memory above all) would keep srun from starting
    (folder / "site.yaml").write_text('extra: [--hold]\nsetup: ["srun -n1 --mpi=none hostname || exit 9"]\n')
    slurm_study.drive(cluster, folder, "--site", str(folder / "site.yaml"))
    (folder / "micro.yaml").write_text(
        slurm_study.NANO.replace("beta: 0.1", "beta: 77").replace("name", "nome")
    )
    (folder / "site.yaml").unlink()
    for job in slurm_study.jobs(folder).values():
        cluster.run("scontrol", "release", job, check=True)
    cluster.wait_until_empty(240)
    assert study.scores(folder) == study.scores(finished), slurm_study.logs(folder)
    assert set(study.attempts(folder).values()) == {1}
    name = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert slurm_study.logs(folder).splitlines().count(name) == 2  # of the cell, of the report


@pytest.mark.skipif("DEMO" not in os.environ, reason="takes minutes; DEMO=1 asks for it")
def test_the_demo_has_the_local_runners_scores(cluster: slurm_local.Cluster, tmp_path: Path) -> None:
    environment = cluster.environment | {"GRID_PYTHON": sys.executable, "PYTHONPATH": str(slurm_study.ROOT)}
    call = [str(DEMO), "--runs"]
    local = [sys.executable, "-m", "experiments.run", *call, str(tmp_path / "local")]
    subprocess.run(local, env=environment, cwd=slurm_study.ROOT, check=True, timeout=3600)
    queued = ["sbatch", f"--output={tmp_path}/grid-%j.log", "slurm/grid.sh", *call, str(tmp_path / "queued")]
    subprocess.run(queued, env=environment, cwd=slurm_study.ROOT, check=True, timeout=60)
    cluster.wait_until_empty(3600)
    assert demo_scores(tmp_path / "queued") == demo_scores(tmp_path / "local")


def demo_scores(runs: Path) -> dict[str, list[object]]:
    found = {}
    for path in sorted(runs.glob("demo/cells/*/generate/*/scores.json")):
        rows = json.loads(path.read_text())["scores"]
        found[str(path.relative_to(runs))] = [(row["metric"], row["score"]) for row in rows]
    assert found
    return found
