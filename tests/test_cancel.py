"""What experiments.cancel takes out of SLURM's queue."""

import os

import pytest
import slurm_local
from manifests import loaded
from processes import until
from stage_states import Studied, queue_of, slurm

from experiments import cancel, slurm_queue, status
from experiments.claim import Claim

ROWS = {
    "j7_0": "RUNNING|None",
    "j7_1": "PENDING|Resources",
    "j7_2": "PENDING|Resources",
    "j8_0": "PENDING|Dependency",
    "j9": "PENDING|Dependency",
}


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Every test asks its own squeue."""
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())


@pytest.fixture
def study(tmp_path):
    found = Studied(tmp_path)
    trained = [[f"train {name}", f"generate {name}"] for name in ("sft.s1", "dpo.s1", "dpo.s2")]
    found.submit("1", {"train-1": ("7", trained), "score-1": ("8", [["score dpo.s1"]])}, report="9")
    found.submit("0", {"train-1": ("5", [["train sft.s2"]])})
    return found


def cancelled(calls):
    return calls.read_text().split() if calls.exists() else []


def test_everything_that_lives_is_cancelled_with_the_report(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root)]) == 0
    assert cancelled(calls) == ["7", "8", "9"], "5 has ended"
    text = capsys.readouterr().out
    assert "cancel  7  train-1: 3 in the queue, 1 of them running" in text
    assert "the same sbatch slurm/grid.sh command goes on later" in text


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        ("method=dpo", ["7_1", "7_2", "8_0"]),
        ("method=dpo,seed=2", ["7_2"]),
        ("method=sft", ["7_0"]),
        ("stage=score", ["8_0"]),
        ("stage=generate", []),  # its elements train, too
        ("seed=1,seed=2", ["7", "8", "9"]),  # everything, so the report, too
    ],
)
def test_elements_all_of_whose_stages_match_are_cancelled(study, monkeypatch, tmp_path, only, ids):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root), "--only", only]) == 0
    assert cancelled(calls) == ids


def test_what_an_element_has_done_does_not_count(study, monkeypatch, tmp_path):
    study.put("train dpo.s1", "done")
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root), "--only", "stage=generate"]) == 0
    assert cancelled(calls) == ["7_1"]


def test_what_others_need_goes_on(tmp_path, monkeypatch):
    study = Studied(tmp_path, methods__cpo={"from": "sft", "params": {"beta": 0.1}})
    elements = [[job["label"].replace("tiny.numbers.", "")] for job in study.plan.jobs]
    study.submit("1", {"train-1": ("7", elements)})
    rows = {f"j7_{n}": "PENDING|None" for n in range(len(elements))}
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**rows))
    assert cancel.main([str(study.root), "--only", "method=dpo"]) == 0
    labels = {elements[int(name.partition("_")[2])][0] for name in cancelled(calls)}
    stages = {label.partition(" ")[0] for label in labels}
    assert stages == {"reference", "train", "generate", "score"}, "pairs are cpo's, too"
    assert all("dpo" in label for label in labels if not label.startswith("reference"))


def test_a_dry_run_cancels_nothing(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root), "--dry-run"]) == 0
    assert cancelled(calls) == []
    assert "would cancel  8" in capsys.readouterr().out


def test_an_empty_queue_is_said_and_is_no_fault(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue="exit 0")
    assert cancel.main([str(study.root)]) == 0
    assert cancelled(calls) == []
    assert "nothing of this study is in SLURM's queue" in capsys.readouterr().out


def test_a_study_that_was_never_submitted_has_nothing_to_cancel(tmp_path, monkeypatch, capsys):
    slurm(monkeypatch, tmp_path, squeue="exit 1")
    assert cancel.main([str(Studied(tmp_path).root)]) == 0
    assert "nothing of this study" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--dry-run", "--orphans", "--only=method=dpo"])
def test_where_the_queue_cannot_be_asked_nothing_is_cancelled(study, monkeypatch, tmp_path, capsys, option):
    calls = slurm(monkeypatch, tmp_path, squeue="exit 1")
    assert cancel.main([str(study.root)]) == cancel.main([str(study.root), option]) == 1
    found = capsys.readouterr()
    assert cancelled(calls) == [] and found.out == "" and "could not be asked" in found.err


def test_while_a_driver_is_at_work_nothing_is_cancelled(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    with Claim(study.root, "submit"):
        assert cancel.main([str(study.root)]) == 1
    assert cancelled(calls) == []
    assert f"a driver is at work on this study (pid {os.getpid()}" in capsys.readouterr().err
    assert cancel.main([str(study.root)]) == 0
    assert cancelled(calls) == ["7", "8", "9"]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_without_a_plan_everything_can_be_cancelled_and_no_part(
    study, monkeypatch, tmp_path, capsys, content
):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    (study.root / "plan.json").unlink()
    if content:
        (study.root / "plan.json").write_text(content)
    for option in ("--only=method=dpo", "--orphans"):
        assert cancel.main([str(study.root), option]) == 2
        assert "plan.json" in capsys.readouterr().err
    assert cancelled(calls) == []
    assert cancel.main([str(study.root)]) == 0
    assert cancelled(calls) == ["7", "8", "9"]


def test_a_folder_that_holds_no_experiment_is_an_error(study, capsys):
    assert cancel.main([f"{study.root}x"]) == 2
    assert f"there is: {study.root}" in capsys.readouterr().err


def test_what_only_an_older_manifest_asked_for_is_named_and_can_be_taken_out(
    study, monkeypatch, tmp_path, capsys
):
    loaded(tmp_path, methods__dpo__params={"beta": 0.2}).write_plan()
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert status.main([str(study.root)]) == 0
    command = f"python -m experiments.cancel {study.root} --orphans"
    said = f"3 elements in SLURM's queue only for an older manifest: 7_1, 7_2, 8_0; take out with: {command}"
    assert said in capsys.readouterr().out
    assert cancel.main([str(study.root), "--orphans"]) == 0
    assert cancelled(calls) == ["7_1", "7_2", "8_0"], "7_0 trains what both need"
    assert "go" not in capsys.readouterr().out.splitlines()[-1], "the new manifest goes on with others"


def test_where_nothing_is_of_an_older_manifest_nothing_is_taken_out(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert status.main([str(study.root)]) == 0
    assert "older manifest" not in capsys.readouterr().out
    assert cancel.main([str(study.root), "--orphans"]) == 0
    assert cancelled(calls) == []


def test_without_scancel_there_is_one_clear_error(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue="echo '7_0|RUNNING|None'")
    (calls.parent / "scancel").unlink()
    monkeypatch.setenv("PATH", str(calls.parent))
    assert cancel.main([str(study.root)]) == 1
    assert "no scancel on this machine" in capsys.readouterr().err


def test_a_complaint_of_scancel_is_shown(study, monkeypatch, tmp_path, capsys):
    slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS), scancel="echo Access denied >&2; exit 1")
    assert cancel.main([str(study.root)]) == 1
    found = capsys.readouterr()
    assert "Access denied" in found.err and "later" not in found.out


def test_a_wrong_selector_cancels_nothing(study, monkeypatch, tmp_path, capsys):
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root), "--only", "method=dop"]) == 2
    assert cancelled(calls) == [] and "did you mean 'dpo'" in capsys.readouterr().err


def test_many_ids_are_given_in_several_calls(study, monkeypatch, tmp_path):
    monkeypatch.setattr(cancel, "_IDS_PER_CALL", 2)
    calls = slurm(monkeypatch, tmp_path, squeue=queue_of(**ROWS))
    assert cancel.main([str(study.root)]) == 0
    assert calls.read_text() == "7 8\n9\n"


@pytest.mark.slurm
@pytest.mark.skipif(not slurm_local.is_installed(), reason="SLURM is not installed")
def test_a_real_queue_loses_what_matches_and_running_jobs_get_sigterm(tmp_path, monkeypatch):
    study = Studied(tmp_path)
    script = tmp_path / "sleeps.sh"
    stop = f"touch {tmp_path}/saved.$SLURM_ARRAY_TASK_ID; exit"
    script.write_text(
        f"#!/bin/sh\ntrap '{stop}' TERM\ntouch {tmp_path}/begun.$SLURM_ARRAY_TASK_ID\nsleep 60 & wait\n"
    )
    with slurm_local.Cluster(cpus=2) as cluster:
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        monkeypatch.setenv("PATH", cluster.environment["PATH"])
        options = ("--parsable", "--output=/dev/null", f"--chdir={tmp_path}")
        array, report = ("--array=0-2", "--comment=1/train-1"), ("--hold", "--comment=1/report")
        job = cluster.run("sbatch", *options, *array, str(script), check=True).stdout.strip()
        last = cluster.run("sbatch", *options, *report, str(script), check=True).stdout.strip()
        elements = [["train dpo.s1"], ["train dpo.s2"], ["train sft.s1"]]
        study.submit("1", {"train-1": (job, elements)}, report=last)
        until(lambda: len(list(tmp_path.glob("begun.*"))) == 2, 30)

        assert cancel.main([str(study.root), "--only", "method=dpo,seed=1"]) == 0
        until(lambda: (tmp_path / "saved.0").exists(), 20)
        until(lambda: (tmp_path / "begun.2").exists(), 20)  # what waited for its place goes on
        assert {name for name, _, _ in cluster.queue()} >= {f"{job}_1", f"{job}_2", last}

        slurm_queue._memory.answers.clear()
        assert cancel.main([str(study.root)]) == 0
        cluster.wait_until_empty(20)
    assert len(list(tmp_path.glob("saved.*"))) == 3
