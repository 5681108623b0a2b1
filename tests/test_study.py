"""Whole runs of a study of seconds: resuming, killing, sharing a folder, changing the manifest."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import study

from experiments import verify

pytestmark = pytest.mark.slow

# `KILLS=10 make test` for a longer trial
KILLS = int(os.environ.get("KILLS", "4"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    study.write_manifest(folder)
    study.run(folder)
    return folder


def copy_of(finished: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """The finished study with another manifest."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    text = study.MANIFEST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    study.write_manifest(folder, text)
    return folder


def newly_begun(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """``method/stage`` of what was begun between two counts."""
    grown = [log for log, count in after.items() if count > before.get(log, 0)]
    return {f"{Path(log).parents[1].name.split('.')[2]}/{Path(log).stem}" for log in grown}


def test_every_cell_is_scored_and_a_second_run_starts_nothing(finished: Path) -> None:
    assert set(study.scores(finished)) == {
        f"tiny.numbers.{name}" for name in ("sft.s1", "dpo.s1", "dpo.s2", "cpo.s1", "cpo.s2")
    }
    before = study.attempts(finished)
    started = time.monotonic()
    output = study.run(finished)
    assert "19 of 19 stages were done before" in output
    assert time.monotonic() - started < 20
    assert study.attempts(finished) == before


def test_stages_killed_at_random_moments_end_in_the_same_scores(finished: Path, tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    chance = random.Random()
    for number in range(KILLS):
        runner = study.start_runner(tmp_path)
        time.sleep(chance.uniform(2, 14))
        victim = runner.pid if number % 2 else running_stage(tmp_path) or runner.pid
        if runner.poll() is None:
            os.kill(victim, signal.SIGKILL)
        if victim == runner.pid:
            runner.communicate(timeout=60)
        else:
            runner.communicate(timeout=240)  # it tries a killed stage again by itself
    study.run(tmp_path)
    assert study.scores(tmp_path) == study.scores(finished)


def running_stage(folder: Path) -> int | None:
    """The process of a stage that runs now, training before others."""
    found = []
    for path in (folder / "runs" / "micro").glob("*/*/status.*.json"):
        status = json.loads(path.read_text())
        if status["state"] == "running" and Path(f"/proc/{status['pid']}").exists():
            found.append((status["stage"] == "train", status["pid"]))
    return max(found)[1] if found else None


def test_stages_end_with_their_runner(tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    runner = study.start_runner(tmp_path)
    pid = None
    for _ in range(600):
        pid = running_stage(tmp_path)
        if pid:
            break
        time.sleep(0.05)
    assert pid, "no stage was seen running"
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate(timeout=60)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the stage outlived its runner by ten seconds")


def test_two_runners_on_one_folder_do_every_stage_once(finished: Path, tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    runners = [study.start_runner(tmp_path) for _ in range(2)]
    outputs = [runner.communicate(timeout=240)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    assert set(study.attempts(tmp_path).values()) == {1}
    assert study.scores(tmp_path) == study.scores(finished)


def test_ctrl_c_stops_and_the_same_command_goes_on(finished: Path, tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    runner = study.start_runner(tmp_path)
    for _ in range(600):
        if running_stage(tmp_path):
            break
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "once more to stop at once" in output
    assert "blocked" not in output
    assert re.fullmatch(
        r"interrupted; (\d+ stages? not started; )?the same command goes on", output.splitlines()[-1]
    )
    study.run(tmp_path)
    assert study.scores(tmp_path) == study.scores(finished)


def test_another_metric_scores_again_and_generates_nothing(finished: Path, tmp_path: Path) -> None:
    copy_of(finished, tmp_path, ("metrics: [chrf]", "metrics: [chrf, bleu]"))
    before = study.attempts(tmp_path)
    study.run(tmp_path)
    assert newly_begun(before, study.attempts(tmp_path)) == {"sft/score", "dpo/score", "cpo/score"}
    assert {len(rows) for rows in study.scores(tmp_path).values()} == {2}


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("simpo", "\nseeds:", "\n  simpo: {from: sft}\nseeds:"),
        ("dpo", "dpo: {from: sft, params: {beta: 0.1}}", "dpo: {from: sft, params: {beta: 0.2}}"),
    ],
    ids=["another method", "another beta"],
)
def test_a_change_of_one_method_runs_only_its_cells(
    finished: Path, tmp_path: Path, method: str, old: str, new: str
) -> None:
    copy_of(finished, tmp_path, (old, new))
    before = study.attempts(tmp_path)
    study.run(tmp_path)
    stages = {f"{method}/{stage}" for stage in ("train", "generate", "score")}
    assert newly_begun(before, study.attempts(tmp_path)) == stages


def test_a_wider_grid_renames_nothing(finished: Path, tmp_path: Path) -> None:
    copy_of(
        finished,
        tmp_path,
        ("dpo: {from: sft, params: {beta: 0.1}}", "dpo: {from: sft, grid: {beta: [0.1, 0.2]}}"),
    )
    before = {path.name for path in (finished / "runs/micro/cells").iterdir()}
    study.run(tmp_path)
    after = {path.name for path in (tmp_path / "runs/micro/cells").iterdir()}
    assert before < after
    assert {name.split("--")[0] for name in after - before} == {
        "tiny.numbers.dpo.beta0.2.s1",
        "tiny.numbers.dpo.beta0.2.s2",
    }


def test_a_bad_line_stops_what_needs_it_and_is_named(tmp_path: Path) -> None:
    rows = [json.dumps({"source": f"text {i}", "reference": f"Text {i}"}) for i in range(20)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([*rows[:7], '{"source": "no reference"}', *rows[7:]]))
    kept, _, _ = study.MANIFEST.partition("    data: {generator")
    rest = study.MANIFEST[study.MANIFEST.index('    prompt: "') :]
    source = f"{{dataset: {data}}}"
    study.write_manifest(tmp_path, f"{kept}    train: {source}\n    tests: {{test: {source}}}\n{rest}")
    output = study.run(tmp_path, code=1)
    assert f"{data}:8: no text under reference" in output
    assert "blocked  train tiny.numbers.dpo.s1" in output
    assert study.scores(tmp_path) == {}


def test_what_is_lost_or_damaged_is_made_again(finished: Path, tmp_path: Path) -> None:
    copy_of(finished, tmp_path)
    root = tmp_path / "runs/micro"
    next(root.glob("reference/*/logps.npy")).write_bytes(b"half")
    next(root.glob("pairs/*/pairs.jsonl")).unlink()
    shutil.rmtree(next(root.glob("cells/*dpo.s1*")) / "model")
    cpo = next(root.glob("cells/*cpo.s1*"))
    (cpo / "status.score.json").write_text("garbage")
    (cpo / "cell.json").write_text("garbage")
    before = study.attempts(tmp_path)
    output = study.run(tmp_path)
    assert "status.score.json.damaged" in output
    assert newly_begun(before, study.attempts(tmp_path)) >= {"dpo/train", "cpo/score"}
    assert study.scores(tmp_path) == study.scores(finished)
    assert "19 of 19 stages were done before" in study.run(tmp_path)


def test_what_was_changed_in_place_is_found_and_made_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(finished, tmp_path)
    root = tmp_path / "runs/micro"
    changed = [
        next(root.glob("cells/*sft.s1*/model/model.safetensors")),
        next(root.glob("cells/*dpo.s1*/generate/*/generations.jsonl")),
    ]
    for path in changed:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert "19 of 19 stages were done before" in study.run(tmp_path)
    assert verify.main([str(root)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"{path} has changed" for path in changed]
    assert last == "19 finished stages, 2 damaged; --forget lets the next run make them again"
    assert verify.main([str(root), "--only", "method=cpo,stage=train"]) == 1  # what it needs is damaged
    assert verify.main([str(root), "--forget"]) == 1
    study.run(tmp_path)
    assert verify.main([str(root)]) == 0
    assert study.scores(tmp_path) == study.scores(finished)


def test_a_stage_that_is_told_to_stop_from_outside_is_started_again(tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    runner = study.start_runner(tmp_path, "--only", "method=sft")
    for _ in range(600):
        if running_stage(tmp_path):
            break
        time.sleep(0.05)
    os.kill(running_stage(tmp_path) or runner.pid, signal.SIGTERM)
    output, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, output


def test_smoke_runs_every_shape_of_cell_in_a_folder_of_its_own(tmp_path: Path) -> None:
    study.write_manifest(tmp_path)
    study.run(tmp_path, "--smoke")
    cells = [
        json.loads(path.read_text()) for path in (tmp_path / "runs/micro-smoke").glob("cells/*/cell.json")
    ]
    assert {cell["method_name"] for cell in cells} == {"sft", "dpo", "cpo"}
    assert {cell["train"]["training"]["max_steps"] for cell in cells} == {2}
    assert not (tmp_path / "runs/micro").exists()


def test_the_report_of_the_study_compares_every_method(finished: Path) -> None:
    root = finished / "runs/micro"
    command = [sys.executable, "-m", "reports.build", str(root), "--trials", "200"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    text = (root / "report/report.md").read_text()
    assert "dpo" in text
    assert "cpo" in text
    assert "chrf built the training pairs" in text
    assert str(root / "report/report.html") in built.stdout
