"""Elements of a real cluster of which something dies, fails for good, or is pushed aside."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_local
import slurm_study
import study

pytestmark = [pytest.mark.slow, pytest.mark.slurm, slurm_study.needs_slurm]

MANIFEST = slurm_study.NANO.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4]")
URGENT = """\
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP
"""
# The first copy of dpo.s1 must still be training when the second one starts, however slow the machine is.
ENDLESS_FIRST_COPY = """
def endless_first_copy(module):
    slow_steps(module)
    quick = module.MethodTrainer.training_step
    def training_step(self, *args, **options):
        is_first = "dpo.s1" in self.args.output_dir and "SLURM_RESTART_COUNT" not in os.environ
        if is_first and self.state.global_step >= 4:  # 3 has been reported by then
            time.sleep(600)
        return quick(self, *args, **options)
    module.MethodTrainer.training_step = training_step

CHANGES["po.training.trainer"] = endless_first_copy
"""
BROKEN = """
def broken(module):
    works = module.main
    def main(argv):
        if os.environ["BROKEN"] in argv[0]:
            raise RuntimeError("broken by the test")
        return works(argv)
    module.main = main

CHANGES["po.train"] = broken
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_local.Cluster]:
    with slurm_local.Cluster(extra=URGENT) as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slurm_study.finished(tmp_path_factory.mktemp("finished"), MANIFEST)


@pytest.fixture(scope="module")
def bereft(
    cluster: slurm_local.Cluster, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A study of which each cell has lost something to kill -9, or always fails; and the cells' elements."""
    folder = tmp_path_factory.mktemp("bereft") / "study"
    slurm_study.copy_without(finished, folder, "cells/*dpo*")
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS + ENDLESS_FIRST_COPY + BROKEN)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="0.4", BROKEN="dpo.s4")
    elements = slurm_study.elements(folder)
    victims = {"dpo.s1": 4, "dpo.s2": 0, "dpo.s3": 2}  # the stage's process, or one of those above it

    def all_were_hit() -> bool:
        for cell in [cell for cell in victims if slurm_study.step(folder, cell) >= 3]:
            victim = above(int(str(slurm_study.status(folder, cell, "train")["pid"])), victims.pop(cell))
            os.kill(victim, signal.SIGKILL)
            if cell == "dpo.s1":  # SLURM would see after two minutes that its own process is gone
                cluster.run("scontrol", "requeue", elements[cell], check=True)
        return not victims

    slurm_study.until(all_were_hit, 240)
    cluster.wait_until_empty(400)
    return folder, elements


def above(pid: int, generations: int) -> int:
    """Stage < its server < slurm.task < the script < slurmstepd."""
    for _ in range(generations):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def test_an_element_that_slurm_lost_sight_of_is_taken_over_by_its_second_copy(
    cluster: slurm_local.Cluster, finished: Path, bereft: tuple[Path, dict[str, str]]
) -> None:
    folder, elements = bereft
    found = slurm_study.facts(cluster, elements["dpo.s1"])
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), slurm_study.logs(folder)
    assert "SLURM has started this job again already" in slurm_study.log_of(folder, elements["dpo.s1"])
    assert slurm_study.outcomes(folder, "dpo.s1", "train") == ["lost", "done"]
    went_on_from_a_checkpoint(folder, finished, "dpo.s1")


def test_an_element_whose_stage_was_killed_tries_again_from_its_checkpoint(
    cluster: slurm_local.Cluster, finished: Path, bereft: tuple[Path, dict[str, str]]
) -> None:
    folder, elements = bereft
    found = slurm_study.facts(cluster, elements["dpo.s2"])
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), slurm_study.logs(folder)
    assert slurm_study.outcomes(folder, "dpo.s2", "train") == ["lost", "done"]
    # it had left a checkpoint, so that the attempt which was lost does not count as a failure
    assert slurm_study.status(folder, "dpo.s2", "train")["attempt"] == 1
    went_on_from_a_checkpoint(folder, finished, "dpo.s2")


def went_on_from_a_checkpoint(folder: Path, finished: Path, cell: str) -> None:
    """A killed attempt has no count of tokens; the one after it has not done all of them."""
    assert 0 < slurm_study.trained_tokens(folder, cell) < slurm_study.trained_tokens(finished, cell)


def test_a_stage_ends_with_its_element(
    cluster: slurm_local.Cluster, bereft: tuple[Path, dict[str, str]]
) -> None:
    folder, elements = bereft
    found = slurm_study.facts(cluster, elements["dpo.s3"])
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("FAILED", "137:0", "0")
    status = slurm_study.status(folder, "dpo.s3", "train")
    assert status["state"] == "running"  # nobody was left to say otherwise
    assert not Path(f"/proc/{status['pid']}").exists()


def test_a_stage_that_always_fails_is_tried_three_times_and_says_why(
    cluster: slurm_local.Cluster, bereft: tuple[Path, dict[str, str]]
) -> None:
    folder, elements = bereft
    found = slurm_study.facts(cluster, elements["dpo.s4"])
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("FAILED", "1:0", "2")
    assert slurm_study.outcomes(folder, "dpo.s4", "train") == ["failed"] * 3
    status = slurm_study.status(folder, "dpo.s4", "train")
    assert (status["state"], status["attempt"]) == ("failed", 3)
    error = status["error"]
    assert isinstance(error, dict)
    assert error["traceback_tail"][-1] == "RuntimeError: broken by the test"


def test_the_report_is_built_whatever_died(
    cluster: slurm_local.Cluster, bereft: tuple[Path, dict[str, str]]
) -> None:
    folder, _ = bereft
    assert slurm_study.facts(cluster, slurm_study.jobs(folder)["report"])["JobState"] == "COMPLETED"
    assert slurm_study.left_over(folder) == []


def test_the_next_sbatch_finishes_what_died(
    cluster: slurm_local.Cluster, finished: Path, bereft: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(bereft[0], tmp_path / "study")
    slurm_study.finish(cluster, folder, "--retry-failed")
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.outcomes(folder, "dpo.s3", "train") == ["lost", "done"]
    went_on_from_a_checkpoint(folder, finished, "dpo.s3")
    assert slurm_study.outcomes(folder, "dpo.s1", "train") == ["lost", "done"]  # as before
    assert slurm_study.left_over(folder) == []


def test_elements_outlive_a_restart_of_slurms_controller(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo.s1*", "cells/*dpo.s2*")
    study.write_manifest(folder, MANIFEST + "slurm: {max_parallel: 1}\n")
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="0.3")
    elements = slurm_study.elements(folder)
    slurm_study.until(lambda: slurm_study.step(folder, "dpo.s1") >= 3, 180)
    assert (elements["dpo.s2"], "PENDING", "JobArrayTaskLimit") in cluster.queue()
    cluster.restart("slurmctld")
    slurm_study.until(lambda: cluster.run("squeue").returncode == 0, 40)
    cluster.wait_until_empty(240)
    for cell in ("dpo.s1", "dpo.s2"):
        found = slurm_study.facts(cluster, elements[cell])
        assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "0"), slurm_study.logs(folder)
        assert slurm_study.outcomes(folder, cell, "train") == ["done"]
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.left_over(folder) == []


def test_an_element_that_must_make_room_for_a_job_of_higher_priority_comes_back(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo.s1*")
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="0.4")
    element = slurm_study.elements(folder)["dpo.s1"]
    slurm_study.until(lambda: slurm_study.step(folder, "dpo.s1") >= 3, 180)
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=8", f"--output={tmp_path}/urgent.log"]
    cluster.run(*urgent, "--wrap=true", check=True)
    cluster.wait_until_empty(240)
    found = slurm_study.facts(cluster, element)
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), slurm_study.logs(folder)
    assert study.scores(folder) == study.scores(finished)
    # it has KillWait, 3 s here, to save; whether it does or not it goes on from a checkpoint
    assert slurm_study.outcomes(folder, "dpo.s1", "train") in (["interrupted", "done"], ["lost", "done"])
    last = slurm_study.records(folder, "dpo.s1", "train")[-1]
    assert int(str(last["tokens"])) < slurm_study.trained_tokens(finished, "dpo.s1")


@pytest.mark.parametrize("cancels", [True, False], ids=["are cancelled", "find out"])
def test_what_needs_a_training_that_failed_for_good_never_begins(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path, cancels: bool
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*sft*", "cells/*dpo.s1*")
    settings = f"slurm: {{max_attempts: 1, kill_on_invalid_dep: {str(cancels).lower()}}}\n"
    study.write_manifest(folder, MANIFEST + settings)
    plug = slurm_study.plug(folder, "CHANGES = {}\n" + BROKEN)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, BROKEN="sft")
    cluster.wait_until_empty(120)

    elements, ids = slurm_study.elements(folder), slurm_study.jobs(folder)
    states = {element: slurm_study.facts(cluster, element) for element in elements.values()}
    child = elements["dpo.s1"]
    assert slurm_study.status(folder, "sft.s1", "train")["state"] == "failed"
    assert slurm_study.status(folder, "dpo.s1", "train") == {}
    if cancels:
        assert states[child]["JobState"] == "CANCELLED"
    else:
        assert (states[child]["JobState"], states[child]["ExitCode"]) == ("FAILED", "69:0")
        assert "needs train of cells/tiny.numbers.sft.s1" in slurm_study.log_of(folder, child)
    assert slurm_study.facts(cluster, ids["report"])["JobState"] == "COMPLETED"

    said = slurm_study.drive(cluster, folder)
    assert "1 failed or were cancelled and are left out, 5 need them" in said
    cluster.wait_until_empty(60)
    if cancels:
        slurm_study.finish(cluster, folder, "--retry-failed")
        assert study.scores(folder) == study.scores(finished)
    assert slurm_study.left_over(folder) == []
