"""plan and status: what is shown, and that nothing is started, written or loaded for it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from manifests import changed, loaded, write

from experiments import plan, status
from experiments.atomic import write_json
from experiments.stage_status import StageStatus, measure_artefacts, write_status


def shown(
    capsys: pytest.CaptureFixture[str], folder: Path, *options: str, code: int = 0, **changes: Any
) -> str:
    path = write(folder, changed(**changes))
    assert plan.main([str(path), "--runs", str(folder / "runs"), *options]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_plan_lists_the_cells_and_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, tmp_path)
    lines = text.splitlines()
    assert lines[0] == f"small: 4 cells in {tmp_path}/runs/small"
    assert [line.split()[0] for line in lines[1:5]] == [
        f"tiny.numbers.{name}" for name in ("sft.s1", "sft.s2", "dpo.s1", "dpo.s2")
    ]
    assert all(
        line.endswith("train not started; generate not started; score not started") for line in lines[1:5]
    )
    assert lines[5] == "18 stages: 0 done, 18 to run (18 not started)"
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_plan_loads_no_model_library(tmp_path: Path) -> None:
    path = write(tmp_path, changed())
    heavy = "transformers trl vllm datasets accelerate peft pandas pyarrow sacrebleu tokenizers"
    code = (
        "import sys; from experiments import plan\n"
        f"assert plan.main([{str(path)!r}, '--runs', {str(tmp_path)!r}]) == 0\n"
        f"print('loaded:', [name for name in {heavy.split()} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_only_shows_the_chosen_cells_and_what_they_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, tmp_path, "--only", "method=dpo,seed=1")
    assert "tiny.numbers.sft.s1" in text
    assert "dpo.s2" not in text
    assert text.endswith("8 stages: 0 done, 8 to run (8 not started)\n")


def test_only_with_a_wrong_name_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, tmp_path, "--only", "method=dop", code=2)
    assert text == "--only: method=dop is in no cell; did you mean 'dpo'? Known: dpo, sft.\n"


def test_stages_are_listed_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, tmp_path, "--stages", "--only", "method=sft,seed=1")
    assert [line.split()[:3] for line in text.splitlines()[1:-1]] == [
        ["pending", "prepare", "tiny.numbers"],
        ["pending", "train", "tiny.numbers.sft.s1"],
        ["pending", "prepare", "tiny.numbers.test"],
        ["pending", "generate", "tiny.numbers.sft.s1"],
        ["pending", "score", "tiny.numbers.sft.s1"],
    ]


def test_warnings_and_translated_names_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simpo = {"from": "sft", "params": {"beta": 0.1, "simpo_gamma": 0.5}}
    text = shown(capsys, tmp_path, methods__simpo=simpo, exclude=[{"when": {"seed": 9}, "reason": "none"}])
    assert "warning: exclude[0] matches no cell\n" in text
    assert "warning: methods.simpo: The target margin is 5 nats per token" in text
    assert "note: simpo: 'simpo_gamma' is read as 'gamma'.\n" in text


def finish(folder: Path, stage: str, digest: str, state: str = "done", **more: Any) -> None:
    """Leaves a stage's status as its process would."""
    (folder / "result").write_text("x")
    owner = {"host": "here", "pid": 1, "boot_id": "b", "token": "t", "start": 1.0, "heartbeat": 1.0}
    artefacts = measure_artefacts(folder, ["result"])
    write_status(
        folder,
        StageStatus(
            stage=stage, state=state, stage_hash=digest, attempt=1, artefacts=artefacts, **owner, **more
        ),  # type: ignore[arg-type]
    )


def test_plan_shows_what_is_done_failed_and_out_of_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = {job.label: job for job in loaded(tmp_path).graph.jobs.values()}
    for job in jobs.values():
        job.write_command_files()
    first, second = jobs["train tiny.numbers.sft.s1"], jobs["train tiny.numbers.sft.s2"]
    finish(first.folder, "train", first.stage_hash)
    finish(first.folder, "generate", "another hash")
    finish(second.folder, "train", second.stage_hash, "failed")
    text = shown(capsys, tmp_path)
    assert "train done; generate its inputs or files changed; score not started" in text
    assert "train failed; generate not started" in text
    assert "18 stages: 1 done, 17 to run (15 not started, 1 its inputs or files changed, 1 failed)" in text


def test_the_stored_plan_holds_cells_hashes_jobs_and_warnings(tmp_path: Path) -> None:
    study = loaded(tmp_path, exclude=[{"when": {"seed": 9}, "reason": "none"}])
    study.write_plan()
    stored = json.loads((study.root / "plan.json").read_text())
    assert stored["warnings"] == ["exclude[0] matches no cell"]
    assert [cell["name"] for cell in stored["cells"]] == [cell.name for cell in study.grid.cells]
    assert all((study.root / cell["folder"]).parent == study.root / "cells" for cell in stored["cells"])
    assert {job["stage"] for job in stored["jobs"]} == {
        "prepare",
        "train",
        "pairs",
        "reference",
        "generate",
        "score",
    }
    assert (study.root / "manifest.yaml").read_bytes() == (tmp_path / "study.yaml").read_bytes()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_status_of_a_folder_without_a_whole_plan_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    assert status.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert "Traceback" not in said


def test_a_damaged_status_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = next(iter(loaded(tmp_path).graph.jobs.values()))
    job.write_command_files()
    (job.folder / f"status.{job.stage}.json").write_text("{")
    assert f"{job.folder}/status.prepare.json: not a whole JSON document" in shown(capsys, tmp_path, code=2)


def test_why_names_what_changed_since_a_cell_was_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "tiny.numbers.dpo.s1"
    assert "no other folder was made for it" in shown(capsys, tmp_path, "--why", name)
    for job in loaded(tmp_path).graph.jobs.values():
        job.write_command_files()
    text = shown(capsys, tmp_path, "--why", name, methods__dpo={"from": "sft", "params": {"beta": 0.2}})
    assert "  train.params.beta: 0.1 -> 0.2\n" in text
    assert text.count(" -> ") == 1


def test_why_follows_a_change_to_the_parent_and_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in loaded(tmp_path).graph.jobs.values():
        job.write_command_files()
    sft = {"params": {"learning_rate": 0.5}}
    text = shown(
        capsys, tmp_path, "--why", "tiny.numbers.dpo.s1", methods__sft=sft, tasks__numbers__data__train=10
    )
    assert "  parent: train.training.learning_rate: 0.001 -> 0.5\n" in text
    assert "  corpus: splits.train.size: 20 -> 10\n" in text


def test_why_knows_a_cell_whose_axes_changed_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in loaded(tmp_path).graph.jobs.values():
        job.write_command_files()
    grid = {"from": "sft", "grid": {"beta": [0.2, 0.3]}}
    text = shown(capsys, tmp_path, "--why", "tiny.numbers.dpo.beta0.2.s1", methods__dpo=grid)
    assert "  train.params.beta: 0.1 -> 0.2\n" in text
    wrong = shown(capsys, tmp_path, "--why", "tiny.numbers.dpo.beta0.2", methods__dpo=grid, code=2)
    assert "is no cell of this plan; did you mean 'tiny.numbers.dpo.beta0." in wrong


def test_a_command_file_names_what_the_stage_process_runs(tmp_path: Path) -> None:
    job = next(job for job in loaded(tmp_path).graph.jobs.values() if job.stage == "train")
    job.write_command_files()
    written = json.loads((job.folder / "stage.train.json").read_text())
    assert (written["module"], written["argv"]) == ("po.train", [str(job.folder)])
    assert (
        json.loads((job.folder / "cell.json").read_text())["hash"] == job.stage_hash == written["stage_hash"]
    )
    write_json(job.folder / "cell.json", {})
    job.write_command_files()
    assert json.loads((job.folder / "cell.json").read_text())["hash"] == job.stage_hash
