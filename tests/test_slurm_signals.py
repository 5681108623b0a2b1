"""Elements of a real cluster that are warned, cancelled or run out of time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_local
import slurm_study
import study

pytestmark = [pytest.mark.slow, pytest.mark.slurm, slurm_study.needs_slurm]

CELLS = {
    "dpo.s1": "before its program has begun",
    "dpo.s2": "while it loads what stages need",
    "dpo.s3": "twice during training",
    "dpo.s4": "between the last step and publishing",
    "dpo.s5": "while it generates",
}
MANIFEST = slurm_study.NANO.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4, 5]")
SETUP = 'slurm: {setup: ["echo getting ready", "sleep 1"]}\n'
SLOW_END = """
def slow_end(module):
    quick = module.publish
    def publish(attempt, *args, **options):
        time.sleep(4 if "dpo.s4" in str(attempt) else 0)
        return quick(attempt, *args, **options)
    module.publish = publish

CHANGES["po.training.checkpoint"] = slow_end
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_local.Cluster]:
    with slurm_local.Cluster() as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slurm_study.finished(tmp_path_factory.mktemp("finished"), MANIFEST + SETUP)


@pytest.fixture(scope="module")
def warned(
    cluster: slurm_local.Cluster, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A study of which every cell was warned once, each at another moment; and the cells' elements."""
    folder = tmp_path_factory.mktemp("warned") / "study"
    slurm_study.copy_without(finished, folder, "cells/*dpo*")
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS + SLOW_END)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="0.3")
    elements = slurm_study.elements(folder)

    def log(cell: str) -> str:
        return slurm_study.log_of(folder, elements[cell])

    moments: dict[str, Callable[[], object]] = {
        "dpo.s1": lambda: "getting ready" in log("dpo.s1"),
        "dpo.s2": lambda: ": log in " in log("dpo.s2"),
        "dpo.s3": lambda: slurm_study.step(folder, "dpo.s3") >= 2,
        "dpo.s4": lambda: list((folder / "runs/micro").glob("cells/*dpo.s4*/attempts/*/model/config.json")),
        "dpo.s5": lambda: slurm_study.status(folder, "dpo.s5", "generate").get("state") == "running",
    }

    def all_were_warned() -> bool:
        for cell in [cell for cell, is_there in moments.items() if is_there()]:
            del moments[cell]
            for _ in range(1 + (cell == "dpo.s3")):
                send(cluster, "USR1", elements[cell])
        return not moments

    slurm_study.until(all_were_warned, 240)
    cluster.wait_until_empty(400)
    return folder, elements


def send(cluster: slurm_local.Cluster, signal: str, element: str) -> None:
    """A signal to the script of a running element, as SLURM's warning of the time limit comes."""
    cluster.run("scancel", "--batch", f"--signal={signal}", element, check=True)


@pytest.mark.parametrize("cell", CELLS, ids=CELLS.values())
def test_an_element_goes_back_to_the_queue_when_warned(
    cluster: slurm_local.Cluster, warned: tuple[Path, dict[str, str]], cell: str
) -> None:
    folder, elements = warned
    found = slurm_study.facts(cluster, elements[cell])
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), slurm_study.logs(folder)


@pytest.mark.parametrize("cell", CELLS, ids=CELLS.values())
def test_a_warned_element_trains_no_step_twice(
    finished: Path, warned: tuple[Path, dict[str, str]], cell: str
) -> None:
    folder, _ = warned
    assert slurm_study.trained_tokens(folder, cell) == slurm_study.trained_tokens(finished, cell)
    outcomes = slurm_study.outcomes(folder, cell, "train")
    # one that has just been forked may have begun its attempt before it heard the warning
    begun = {"dpo.s2": [["done"], ["interrupted", "done"]], "dpo.s3": [["interrupted", "done"]]}
    assert outcomes in begun.get(cell, [["done"]])


def test_a_warning_during_generation_costs_no_training(warned: tuple[Path, dict[str, str]]) -> None:
    folder, _ = warned
    assert slurm_study.outcomes(folder, "dpo.s5", "generate") == ["interrupted", "done"]


def test_warned_elements_end_in_the_same_scores_and_leave_no_process(
    finished: Path, warned: tuple[Path, dict[str, str]]
) -> None:
    folder, _ = warned
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.left_over(folder) == []


def test_a_cancelled_element_saves_and_waits_for_the_next_sbatch(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*sft*", "cells/*dpo.s1*")
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="0.3")
    elements = slurm_study.elements(folder)
    training, child = elements["sft.s1"], elements["dpo.s1"]
    slurm_study.until(lambda: slurm_study.step(folder, "sft.s1") >= 2, 180)
    send(cluster, "TERM", training)
    cluster.run("scancel", training, check=True)
    cluster.wait_until_empty(120)

    assert slurm_study.status(folder, "sft.s1", "train")["state"] == "interrupted"
    assert slurm_study.facts(cluster, training)["Restarts"] == "0"
    assert slurm_study.facts(cluster, child)["JobState"] == "CANCELLED"
    assert slurm_study.facts(cluster, slurm_study.jobs(folder)["report"])["JobState"] == "COMPLETED"
    assert slurm_study.left_over(folder) == []

    slurm_study.finish(cluster, folder)
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.outcomes(folder, "sft.s1", "train") == ["interrupted", "done"]
    assert slurm_study.trained_tokens(folder, "sft.s1") == slurm_study.trained_tokens(finished, "sft.s1")


def test_a_training_longer_than_its_time_limit_goes_on_until_it_is_done(
    cluster: slurm_local.Cluster, finished: Path, tmp_path: Path
) -> None:
    folder = slurm_study.copy_without(finished, tmp_path / "study", "cells/*dpo.s1*")
    study.write_manifest(folder, MANIFEST + 'resources: {default: {time: "00:01:00"}}\n')
    plug = slurm_study.plug(folder, slurm_study.SLOW_STEPS)
    slurm_study.drive(cluster, folder, PYTHONPATH=plug, STEP_S="5")  # 12 of them
    element = slurm_study.elements(folder)["dpo.s1"]
    cluster.wait_until_empty(400)
    found = slurm_study.facts(cluster, element)
    assert found["TimeLimit"] == "00:01:00"
    assert int(found["Restarts"]) >= 1
    if found["JobState"] != "COMPLETED":  # SLURM killed it before its step was over
        slurm_study.finish(cluster, folder)
    assert study.scores(folder) == study.scores(finished)
    assert slurm_study.outcomes(folder, "dpo.s1", "train")[-1] == "done"
    assert len(slurm_study.outcomes(folder, "dpo.s1", "train")) > 1
    assert slurm_study.left_over(folder) == []
