"""Stages that share a process: each under its own claim and status, whatever becomes of the others."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from manifests import loaded
from processes import until
from scored_run import make_run

from eval.metrics import METRICS, Signatures
from eval.metrics.learned import LearnedMetric
from eval.score import main as score
from experiments import forking
from experiments.job import Job
from experiments.scheduler import Scheduler, _Slots
from experiments.schema_resources import Limits
from experiments.score_batch import fill_scores
from experiments.stage_status import read_status
from experiments.units import Unit
from experiments.workers import start_worker

ARTEFACTS = ("model.json", "model")


@pytest.fixture(autouse=True)
def light_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy stages need no library of models; the server starts with the first of them."""
    monkeypatch.setattr(forking, "_PRELOAD", ["experiments.stage_batch"])


class Shown:
    """A display that keeps what it is told, and does something once a stage has got so far."""

    def __init__(self, reached: Path | None = None, act: Any = None) -> None:
        self.ended: list[tuple[str, str]] = []
        self.reached, self.act = reached, act

    def say(self, text: str) -> None:
        self.ended.append(("said", text))

    def finished(self, job: Job, outcome: str, seconds: float) -> None:
        self.ended.append((job.label, outcome))

    def tick(self, running: Any) -> None:
        if self.reached is not None and self.reached.exists():
            self.reached = None
            self.act()


def job(folder: Path, *what: str, group: str = "g", gpus: int = 0, needs: tuple[Job, ...] = ()) -> Job:
    folder.mkdir(exist_ok=True)
    unit = Unit("cell", folder, "abc", {"name": folder.name, "hash": "abc"})
    argv = (str(folder), *what)
    return Job(
        unit, "train", "abc", "toy_stage", argv, ARTEFACTS, needs, folder.name, Limits(gpus=gpus), group
    )


def scheduler(jobs: list[Job], shown: Shown, gpus: tuple[str, ...] = ()) -> Scheduler:
    return Scheduler(jobs, _Slots(4, 4, list(gpus), 4), shown)


def pids(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return path.read_text().split() if path.exists() else []


def state(folder: Path) -> str:
    status = read_status(folder, "train")
    return status.state if status else "not begun"


def test_jobs_of_a_group_run_in_one_process_each_with_its_status_and_log(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    alone = job(tmp_path / "alone", "write", group="")
    shown = Shown()
    outcomes = scheduler([*(job(folder, "write") for folder in folders), alone], shown).run()
    assert set(outcomes.values()) == {"done"}
    assert [label for label, _ in shown.ended if label != "alone"] == ["a", "b", "c"]
    assert len({pid for folder in folders for pid in pids(folder)}) == 1
    assert pids(tmp_path / "alone") != pids(folders[0])
    for folder in folders:
        assert state(folder) == "done"
        assert "attempt 1 of 3" in (folder / "logs" / "train.log").read_text()
        assert not (folder / "claim.train").exists()


def test_what_was_done_before_is_not_begun_again(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    scheduler([job(folders[0], "write")], Shown()).run()
    scheduler([job(folder, "write") for folder in folders], Shown()).run()
    assert [len(pids(folder)) for folder in folders] == [1, 1]


@pytest.mark.parametrize(("what", "processes"), [(("fail",), 2), (("give", "65"), 1)])
def test_one_that_fails_does_not_stop_the_next(tmp_path: Path, what: tuple[str, ...], processes: int) -> None:
    folders = [tmp_path / name for name in "abc"]
    jobs = [job(folders[0], "write"), job(folders[1], *what), job(folders[2], "write")]
    shown = Shown()
    outcomes = scheduler(jobs, shown).run()
    assert list(outcomes.values()) == ["done", "failed", "done"]
    assert shown.ended == [("a", "done"), ("b", "failed"), ("c", "done")]
    # after a fault that may have spoilt the process the rest gets a fresh one
    assert len({pid for folder in folders for pid in pids(folder)}) == processes


def test_a_stop_ends_the_one_that_runs_and_begins_no_other(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    jobs = [job(folders[0], "write"), job(folders[1], "sleep"), job(folders[2], "write")]
    shown = Shown(folders[1] / "started", lambda: running.stop(kill=False))
    running = scheduler(jobs, shown)
    outcomes = running.run()
    assert [state(folder) for folder in folders] == ["done", "interrupted", "not begun"]
    assert (outcomes[jobs[0].key], outcomes[jobs[1].key]) == ("done", "interrupted")
    assert jobs[2].key not in outcomes


def test_what_needs_an_interrupted_stage_is_not_begun_and_not_called_blocked(tmp_path: Path) -> None:
    first = job(tmp_path / "a", "sleep")
    second = job(tmp_path / "b", "write", needs=(first,))
    jobs = [first, second, job(tmp_path / "c", "write", needs=(second,))]
    shown = Shown(first.folder / "started", lambda: running.stop(kill=False))
    running = scheduler(jobs, shown)
    assert running.run() == {first.key: "interrupted"}
    assert shown.ended == [("a", "interrupted")]


def test_what_needs_a_stage_that_is_told_to_stop_too_often_ends_with_it(tmp_path: Path) -> None:
    """Nobody has stopped the runner, which must not wait for ever."""
    first = job(tmp_path / "a", "give", "85")
    shown = Shown()
    jobs = [first, job(tmp_path / "b", "write", needs=(first,))]
    assert scheduler(jobs, shown).run() == {first.key: "interrupted"}
    assert shown.ended == [("a", "interrupted")]


def test_a_failure_blocks_what_needs_it(tmp_path: Path) -> None:
    first = job(tmp_path / "a", "give", "65")
    shown = Shown()
    jobs = [first, job(tmp_path / "b", "write", needs=(first,))]
    assert list(scheduler(jobs, shown).run().values()) == ["failed", "blocked"]


def test_a_killed_process_loses_only_the_stage_that_it_was_at(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    jobs = [job(folders[0], "write"), job(folders[1], "sleep_once"), job(folders[2], "write")]
    started = folders[1] / "started"
    shown = Shown(started, lambda: os.kill(int(pids(folders[1])[0]), signal.SIGKILL))
    assert set(scheduler(jobs, shown).run().values()) == {"done"}
    assert [len(pids(folder)) for folder in folders] == [1, 2, 1]


def test_free_gpus_share_a_group_between_them(tmp_path: Path) -> None:
    jobs = [job(tmp_path / name, "write", gpus=1) for name in "abcd"]
    assert set(scheduler(jobs, Shown(), ("0", "1")).run().values()) == {"done"}
    used = [pids(each.folder)[0] for each in jobs]
    assert used[0] == used[1] != used[2] == used[3]


def test_generation_with_vllm_is_grouped_by_model_and_other_backends_are_not(tmp_path: Path) -> None:
    def generating(**changes: Any) -> list[Job]:
        found = loaded(tmp_path, **changes)
        return [each for each in found.graph.jobs.values() if each.stage == "generate"]

    assert {each.group for each in generating()} == {""}
    resources = {"rules": [{"when": {"stage": "generate"}, "set": {"gpus": 2}}]}
    model = {"from_scratch": {"hidden_size": 64, "layers": 1, "heads": 2}}
    parts: dict[str, Any] = {"models__other": model, "tasks__numbers__generation__backend": "vllm"}
    grouped = generating(**parts, resources=resources)
    assert len({each.group for each in grouped}) == 2
    assert {each.argv[1:] for each in grouped} == {("--tensor-parallel", "2")}
    assert {each.argv[1:] for each in generating(**parts)} == {()}


class Judge(LearnedMetric):
    """A metric with a model that scores lengths; counts how often the model is loaded."""

    name = "judge"
    title = "for tests"
    program, environment, empty_score, batch_size = "judge", "main", None, 2

    def settings(self) -> dict[str, Any]:
        return {}

    def signatures(self, examples: Any, target_lang: str | None = None) -> Signatures:
        return Signatures("judge", "judge")


def test_scoring_with_a_model_is_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.metrics.METRICS", {**METRICS, "judge": Judge()})

    def groups(*names: str) -> set[str]:
        found = loaded(tmp_path, tasks__numbers__metrics=list(names))
        return {each.group for each in found.graph.jobs.values() if each.stage == "score"}

    assert groups("chrf") == {""}
    assert [bool(group) for group in groups("chrf", "judge")] == [True]


def test_models_score_the_outputs_of_all_cells_before_the_stages_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def scored(program: Any, settings: Any, environment: Any, shards: Any, title: Any) -> Any:
        calls.append(sum(map(len, shards)))
        yield from enumerate([[{"score": float(len(r["hyp"]))} for r in shard] for shard in shards])

    monkeypatch.setattr("eval.metrics.METRICS", {**METRICS, "judge": Judge()})
    monkeypatch.setattr("eval.metrics.learned.shared_pool", lambda: SimpleNamespace(score=scored))
    texts = [[f"{name} {i}" for i in range(6)] for name in ("one", "two")]
    cells = [make_run(tmp_path, t, name=f"m{i}", metrics=("judge",))[0] for i, t in enumerate(texts)]
    broken = tmp_path / "cells" / "broken"
    broken.mkdir()
    fill_scores([*cells, broken])
    assert calls == [12]
    assert "cell.json: no such file" in capsys.readouterr().err
    assert [score([str(cell)]) for cell in cells] == [0, 0]
    assert calls == [12]


def test_a_second_ctrl_c_while_a_process_is_being_started_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = scheduler([job(tmp_path / "a", "sleep_to_boundary")], Shown())

    def started(*arguments: Any) -> Any:
        worker = start_worker(*arguments)
        until((tmp_path / "a" / "started").exists)
        it.stop(kill=False)
        it.stop(kill=True)
        return worker

    monkeypatch.setattr("experiments.scheduler.start_worker", started)
    assert set(it.run().values()) == {"interrupted"}
    status = read_status(tmp_path / "a", "train")
    assert status is not None and status.state == "running", "killed, so that it could not say so"
