"""What stages get: defaults, rules, and what a machine cannot give."""

from pathlib import Path
from typing import Any

import pytest
from manifests import changed, loaded, only_fault, write

from experiments import run
from experiments.graph import Graph


def graph(tmp_path: Path, **resources: Any) -> Graph:
    return loaded(tmp_path, resources=resources).graph


def test_a_cell_of_several_nodes_is_left_to_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = [{"when": {"stage": "train"}, "set": {"nodes": 2}}]
    path = write(tmp_path, changed(resources={"rules": rules}))
    assert run.main([str(path), "--runs", str(tmp_path / "runs")]) == 2
    assert "asks for 2 nodes, and this runner has one; use sbatch slurm/grid.sh" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_only_training_runs_over_several_nodes(tmp_path: Path) -> None:
    jobs = graph(tmp_path, default={"nodes": 2}).jobs.values()
    assert {job.stage for job in jobs if job.limits.nodes == 2} == {"train"}


def test_preparing_and_reporting_get_a_gpu_only_by_a_rule(tmp_path: Path) -> None:
    plain = graph(tmp_path / "a", default={"gpus": 1})
    assert {job.stage for job in plain.jobs.values() if not job.gpus} == {"prepare"}
    assert plain.report_limits.gpus == 0
    rules = [{"when": {"stage": ["prepare", "report"]}, "set": {"gpus": 2}}]
    asked = graph(tmp_path / "b", default={"gpus": 1}, rules=rules)
    assert {job.gpus for job in asked.jobs.values() if job.stage == "prepare"} == {2}
    assert asked.report_limits.gpus == 2


def test_a_training_of_several_processes_is_launched_with_its_configuration(tmp_path: Path) -> None:
    limits = {"gpus": 1, "nodes": 2, "accelerate_config": "fsdp2"}
    jobs = graph(tmp_path, rules=[{"when": {"stage": "train"}, "set": limits}]).jobs.values()
    for job in (job for job in jobs if job.stage == "train"):
        assert job.module == "experiments.launch"
        options = ("--processes", "1", "--nodes", "2", "--config", "fsdp2", "po.train", str(job.folder))
        assert job.argv == options


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"mem": "48 GB"}, "memory is written as SLURM does: 48G"),
        ({"time": "4h"}, "a time is written as SLURM does: 04:00:00"),
        ({"time": -5}, "a time is written as SLURM does"),
        ({"nodes": 0}, "greater than or equal to 1"),
        ({"gpu": 1}, "unknown key 'gpu'; did you mean 'gpus'?"),
    ],
)
def test_a_limit_that_slurm_would_not_understand_is_a_fault(
    tmp_path: Path, limits: dict[str, Any], expected: str
) -> None:
    assert expected in only_fault(tmp_path, resources={"default": limits})


def test_minutes_are_a_time(tmp_path: Path) -> None:
    limits = graph(tmp_path, default={"time": 120, "mem": "2000M"}).report_limits
    assert (limits.time, limits.mem) == ("120", "2000M")


def test_words_about_slurm_are_checked(tmp_path: Path) -> None:
    assert "unknown key 'max_paralel'; did you mean 'max_parallel'?" in only_fault(
        tmp_path, slurm={"max_paralel": 3}
    )
