"""What experiments.status says of a study, from its files alone."""

import json
import os
import subprocess
import sys
import time

import pytest
from stage_states import ERROR, Studied, queue_of, slurm
from toy_stage import ENVIRONMENT

from experiments import retry, slurm_queue, status
from experiments.claim import Claim
from experiments.overview import survey
from experiments.stage_command import StageCommand, write_command
from experiments.status_table import duration
from experiments.submissions import Queue, read_queue


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Every test asks its own squeue."""
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())


@pytest.fixture
def study(tmp_path):
    return Studied(tmp_path)


def states(study):
    rows = survey(study.plan, read_queue(study.root)).rows
    return {row.label.replace("tiny.numbers.", ""): row.state for row in rows}


def shown(study, capsys, *options, code):
    assert status.main([str(study.root), *options]) == code
    return capsys.readouterr().out


def test_nothing_begun_is_pending_or_waits(study, capsys):
    found = states(study)
    assert found["prepare tiny.numbers"] == "pending"
    assert {found[label] for label in found if label != "prepare tiny.numbers"} == {"waiting"}
    assert "0 %  0 of 18 stages done" in shown(study, capsys, code=0)


def test_all_done_is_said_and_is_no_fault(study, capsys):
    study.finish()
    text = shown(study, capsys, code=0)
    assert "100 %  18 of 18 stages done" in text and "failed" not in text


def test_a_failure_blocks_all_that_rests_on_it_and_nothing_else(study, capsys):
    study.finish("train dpo.s1", "generate dpo.s1", "score dpo.s1")
    log = study.put("train dpo.s1", "failed", attempt=3, error=ERROR) / "logs" / "train.log"
    log.parent.mkdir()
    log.touch()
    found = states(study)
    assert [found[f"{stage} dpo.s1"] for stage in ("train", "generate", "score")] == ["failed"] + [
        "blocked"
    ] * 2
    assert found["score dpo.s2"] == "done"
    text = shown(study, capsys, code=1)
    said = f"train tiny.numbers.dpo.s1  attempt 3 of 3, KeyError: 'no such column', log: {log}"
    assert said in text and "Traceback" not in text
    assert "score tiny.numbers.dpo.s1  by train tiny.numbers.dpo.s1" in text
    assert "experiments.retry" in text


def test_what_was_cancelled_blocks_but_is_no_fault_by_itself(study):
    study.finish("train dpo.s1", "score dpo.s1", "score dpo.s2")
    study.put("score dpo.s2", "cancelled")
    assert status.main([str(study.root)]) == 0
    study.put("train dpo.s1", "cancelled")
    assert states(study)["score dpo.s1"] == "pending", "it needs generate alone, and that is done"


def test_a_dead_owner_is_lost_and_never_running(study, capsys):
    study.finish("score dpo.s1")
    study.put("score dpo.s1", "running")
    assert states(study)["score dpo.s1"] == "lost"
    text = shown(study, capsys, code=1)
    assert "last seen" in text and "on n1" in text


def test_a_running_stage_tells_its_step_and_what_is_left(study, capsys):
    study.finish("train dpo.s1", "generate dpo.s1", "score dpo.s1")
    folder = study.put("train dpo.s1", "running", start=time.time() - 600)
    (folder / "progress.train.json").write_text('{"step": 30, "total": 90, "first_step": 10}')
    with Claim(folder, "train"):
        text = shown(study, capsys, code=0)
        (row,) = [
            row
            for row in json.loads(shown(study, capsys, "--json", code=0))["stages"]
            if row["state"] == "running"
        ]
    # 20 steps in 10 minutes, so 60 more in 30
    assert "train tiny.numbers.dpo.s1  step 30 of 90, for 10 min, about 30 min to go, on " in text
    assert (row["step"], row["total"], row["label"]) == (30, 90, "train tiny.numbers.dpo.s1")
    assert row["elapsed_s"] == pytest.approx(600, abs=30)


def test_progress_of_an_earlier_attempt_is_not_shown(study, capsys):
    study.finish("train dpo.s1", "generate dpo.s1", "score dpo.s1")
    folder = study.put("train dpo.s1", "running")
    path = folder / "progress.train.json"
    path.write_text('{"step": 30, "total": 90, "first_step": 10}')
    os.utime(path, (time.time() - 1000,) * 2)
    with Claim(folder, "train"):
        assert "step 30" not in shown(study, capsys, code=0)


def test_a_failed_attempt_with_others_left_is_pending_and_named(study, capsys):
    study.finish("score dpo.s1")
    study.put("score dpo.s1", "pending", attempt=1, error=ERROR)
    text = shown(study, capsys, code=0)
    assert "will be tried again" in text and "attempt 1 of 3, KeyError: 'no such column'" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 1}', '{"schema": 7}'])
def test_a_damaged_status_is_shown_as_damaged(study, capsys, content):
    study.finish("score dpo.s1")
    path = study.place("train dpo.s2") / "status.train.json"
    path.write_text(content)
    assert str(path) in shown(study, capsys, code=1)
    assert states(study)["train dpo.s2"] == "damaged"


@pytest.mark.parametrize("facts", [{"start": "x"}, {"artefacts": None, "state": "done"}, {"error": 3}])
def test_a_status_of_other_types_is_shown_as_damaged(study, capsys, facts):
    study.finish()
    path = study.place("train dpo.s2") / "status.train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"} | facts))
    assert f"{path}: not a status" in shown(study, capsys, code=1)


def test_another_hash_is_stale(study):
    study.finish()
    study.put("score dpo.s1", "done", stage_hash="older")
    assert states(study)["score dpo.s1"] == "stale"


def test_long_lists_are_cut_unless_all_is_asked_for(tmp_path, capsys):
    study = Studied(tmp_path, seeds=list(range(1, 13)))
    study.finish()
    for seed in range(1, 13):
        study.put(f"score dpo.s{seed}", "failed", error=ERROR)
    text = shown(study, capsys, code=1)
    assert text.count("KeyError") == 10 and "... and 2 more" in text
    text = shown(study, capsys, "--all", code=1)
    assert text.count("KeyError") == 12 and "more" not in text


def test_used_and_projected_hours_and_the_end(study, capsys):
    study.finish("train dpo.s2", "generate dpo.s2", "score dpo.s2")
    study.record("train dpo.s1", 7200.0, cpus=2)
    study.record("generate dpo.s1", 3600.0)
    folder = study.put("train dpo.s2", "running", start=time.time() - 3600)
    with Claim(folder, "train"):
        text = shown(study, capsys, code=0)
    # used 2 h x 2 + 1 h; to go: 1 h of the training, 1 h of generation; nothing is known of scores
    assert "used: 5.0 CPU hours; to go: at least 2.0 CPU hours (1 stages not counted" in text
    assert "end: in at least 2 h 00 min with 1 at a time" in text or "end: in at least 1 h 59 min" in text


def test_gpu_hours_where_a_stage_asks_for_gpus(tmp_path, capsys):
    rules = [{"when": {"stage": "train"}, "set": {"gpus": 2}}]
    study = Studied(tmp_path, resources__rules=rules, training__per_device_batch_size=4)
    study.finish("train dpo.s2", "generate dpo.s2", "score dpo.s2")
    study.record("train dpo.s1", 3600.0, gpus=2, energy_j=3.6e6)
    study.record("generate dpo.s1", None, gpus=None, outcome="lost")
    text = shown(study, capsys, code=0)
    assert "used: 2.0 GPU hours, 1 kWh; to go: at least 2.0 GPU hours" in text
    assert "end: not yet known (nothing runs)" in text


def test_what_the_queue_holds_is_queued_and_needs_no_answer_to_be_named(study, capsys, monkeypatch, tmp_path):
    study.finish("train dpo.s1", "generate dpo.s1", "score dpo.s1", "score dpo.s2", "score sft.s1")
    elements = [["train dpo.s1", "generate dpo.s1"], ["score dpo.s2"], ["score sft.s1"]]
    study.submit("1", {"train-1": ("7", elements), "score-1": ("8", [["score dpo.s1"]])}, report="9")
    rows = {"j7_0": "RUNNING|None", "j8_0": "PENDING|Dependency", "j7_2": "CANCELLED|None"}
    slurm(monkeypatch, tmp_path, squeue=queue_of(**rows, j9="PENDING|Dependency"))
    found = states(study)
    assert [found[f"{stage} dpo.s1"] for stage in ("train", "generate", "score")] == ["queued"] * 3
    assert found["score dpo.s2"] == found["score sft.s1"] == "pending", "their elements have ended"
    document = json.loads(shown(study, capsys, "--json", code=0))
    jobs = {row["label"]: row.get("slurm_job") for row in document["stages"]}
    assert jobs["train tiny.numbers.dpo.s1"] == "7_0" and jobs["score tiny.numbers.dpo.s1"] == "8_0"

    slurm(monkeypatch, tmp_path, squeue="exit 1")
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())
    assert states(study)["score dpo.s2"] == "submitted?"
    assert "queue could not be asked" in shown(study, capsys, code=0)


def test_what_its_driver_has_cancelled_again_was_not_submitted(study):
    study.finish("score dpo.s1")
    study.submit("1", {"score-1": ("7", [["score dpo.s1"]])})
    path = study.root / "submissions" / "1" / "jobs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cancelled": True}))
    assert read_queue(study.root).arrays == () and states(study)["score dpo.s1"] == "pending"


def test_squeue_is_not_asked_where_nothing_was_submitted(study, monkeypatch, tmp_path, capsys):
    slurm(monkeypatch, tmp_path, squeue=f"touch {tmp_path}/asked; exit 1")
    assert "could not be asked" not in shown(study, capsys, code=0)
    assert not (tmp_path / "asked").exists()


def test_a_lost_stage_is_queued_only_while_its_element_waits(study, monkeypatch, tmp_path):
    study.finish("score dpo.s1", "score dpo.s2")
    study.put("score dpo.s1", "running")
    study.put("score dpo.s2", "running")
    study.submit("1", {"score-1": ("7", [["score dpo.s1"], [], ["score dpo.s2"]])})  # 1 is left out
    rows = {"j7_0": "RUNNING|None", "j7_2": "PENDING|BeginTime"}
    slurm(monkeypatch, tmp_path, squeue=queue_of(**rows))
    assert (states(study)["score dpo.s1"], states(study)["score dpo.s2"]) == ("lost", "queued")


def test_jobs_that_can_never_start_are_named_and_count_as_nothing(study, capsys, monkeypatch, tmp_path):
    study.finish("score dpo.s1")
    study.submit("1", {"score-1": ("7", [["score dpo.s1"]])})
    slurm(monkeypatch, tmp_path, squeue=queue_of(j7_0="PENDING|DependencyNeverSatisfied"))
    assert states(study)["score dpo.s1"] == "pending"
    assert "can never start, what they depend on has failed: 7_0" in shown(study, capsys, code=0)


def test_unusual_reasons_to_wait_are_told_once_each(study, capsys, monkeypatch, tmp_path):
    study.finish("score dpo.s1", "score dpo.s2", "score sft.s1", "score sft.s2")
    names = ("dpo.s1", "dpo.s2", "sft.s1", "sft.s2")
    study.submit("1", {"score-1": ("3", [[f"score {name}"] for name in names])})
    limit = "PENDING|PartitionTimeLimit"
    rows = {"j3_0": limit, "j3_1": limit, "j3_2": "PENDING|QOSMaxJobsPerUser", "j3_3": "PENDING|Priority"}
    slurm(monkeypatch, tmp_path, squeue=queue_of(**rows))
    text = shown(study, capsys, code=0)
    assert "SLURM: 3_0 and 1 more wait: PartitionTimeLimit" in text
    assert "SLURM: 3_2 waits: QOSMaxJobsPerUser" in text and "Priority" not in text


def gone(study, *logs):
    """A submission whose elements have left the queue; SLURM has started those that have a log."""
    study.finish("score dpo.s1", "score dpo.s2", "score sft.s1")
    elements = [["score dpo.s1"], ["score dpo.s2"], ["score sft.s2"]]  # the last is done
    study.submit("1", {"score-1": ("7", elements)}, report="8")
    folder = study.root / "submissions" / "1"
    (folder / "manifest.yaml").touch()
    (folder / "logs" / "score-1").mkdir(parents=True)
    for index in logs:
        (folder / "logs" / "score-1" / f"{index}.log").touch()


def test_elements_that_ended_without_beginning_are_a_fault(study, capsys, monkeypatch, tmp_path):
    gone(study, 0, 1, 2)
    slurm(monkeypatch, tmp_path, squeue="exit 0")
    text = shown(study, capsys, code=1)
    said = "2 elements of SLURM ended without beginning a stage; look at submissions/1/logs/score-1/0.log"
    assert said in text
    slurm(monkeypatch, tmp_path, squeue=queue_of(j7_0="PENDING|Priority", j7_1="RUNNING|None"))
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())
    assert "ended without" not in shown(study, capsys, code=0)


def test_elements_that_were_cancelled_before_they_ran_are_no_fault(study, capsys, monkeypatch, tmp_path):
    gone(study)
    slurm(monkeypatch, tmp_path, squeue="exit 0")
    assert "2 elements left SLURM's queue without a node (cancelled?)" in shown(study, capsys, code=0)


def test_a_stage_that_began_and_is_to_be_tried_again_is_no_fault(study, capsys, monkeypatch, tmp_path):
    gone(study, 0, 1)
    slurm(monkeypatch, tmp_path, squeue="exit 0")
    for label in ("score dpo.s1", "score dpo.s2"):
        study.put(label, "failed", attempt=3, error=ERROR)
        log = study.place(label) / "logs" / "score.log"
        log.parent.mkdir()
        log.touch()
    assert retry.main([str(study.root), "--failed"]) == 0
    assert "without" not in shown(study, capsys, code=0)


def test_of_a_queue_that_is_not_needed_any_more_nothing_is_said(study, capsys, monkeypatch, tmp_path):
    study.finish()
    study.submit("1", {"score-1": ("7", [["score dpo.s1"]])})
    slurm(monkeypatch, tmp_path, squeue="exit 1")
    assert "could not be asked" not in shown(study, capsys, code=0)


def test_records_of_costs_that_cannot_be_read_stop_nothing(study, capsys):
    study.finish()
    place = study.place("train dpo.s1")
    (place / "attempts.jsonl").mkdir()
    (study.place("train dpo.s2") / "attempts.jsonl").write_text('{"schema": 1, "wall_s": "long"}\n')
    assert status.main([str(study.root)]) == 0
    found = capsys.readouterr()
    assert "100 %" in found.out and found.err.count(f"{place / 'attempts.jsonl'} cannot be read") == 1


@pytest.mark.parametrize(
    "content", ["{", '{"jobs": [{"array": "a"}]}', '{"jobs": [{"array": "a", "kind": "b", "job": "x"}]}']
)
def test_a_damaged_submission_is_a_warning(study, capsys, content):
    study.submit("1", {})
    (study.root / "submissions" / "1" / "jobs.json").write_text(content)
    assert "jobs.json cannot be read" in shown(study, capsys, code=0)


def test_a_folder_without_a_plan_names_those_that_have_one(study, capsys):
    assert status.main([str(study.root.parent / "smal")]) == 2
    assert f"there is: {study.root}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("jobs"),
        lambda plan: plan["jobs"][0].update(needs=[3]),
        lambda plan: plan["cells"].append({}),
    ],
)
def test_a_damaged_plan_is_one_clear_error(study, capsys, change):
    plan = json.loads((study.root / "plan.json").read_text())
    change(plan)
    (study.root / "plan.json").write_text(json.dumps(plan))
    assert status.main([str(study.root)]) == 2
    assert "plan.json" in capsys.readouterr().err


def test_the_plan_of_an_older_version_can_be_shown(study, capsys):
    plan = json.loads((study.root / "plan.json").read_text())
    for job in plan["jobs"]:
        for key in ("needs", "cpus", "gpus", "shape"):
            del job[key]
    (study.root / "plan.json").write_text(json.dumps(plan))
    assert "0 of 18 stages done" in shown(study, capsys, code=0)
    assert set(states(study).values()) == {"pending"}


def test_several_experiments_are_shown_one_after_another(tmp_path, capsys):
    one, other = Studied(tmp_path), Studied(tmp_path, name="other")
    assert status.main([str(one.root), str(other.root), "--json"]) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names == ["small", "other"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (125, "2 min"), (3 * 3600 + 300, "3 h 05 min"), (100 * 3600, "4 d 4 h")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_stage_that_really_failed_is_shown_and_runs_again_after_a_retry(study, capsys):
    job = study.job("prepare tiny.numbers")
    folder = study.root / job["folder"]
    folder.mkdir(parents=True)
    about = {"module": "toy_stage", "stage_hash": job["stage_hash"], "artefacts": ("model.json",)}
    write_command(folder, "prepare", StageCommand(argv=(str(folder), "fail"), max_attempts=1, **about))
    options = [sys.executable, "-m", "experiments.stage_process", str(folder), "prepare", "--log"]
    subprocess.run(options, env=ENVIRONMENT, check=False)
    log = folder / "logs" / "prepare.log"
    said = f"prepare tiny.numbers  attempt 1 of 1, KeyError: 'no such column', log: {log}"
    assert said in shown(study, capsys, code=1)
    assert retry.main([str(study.root), "--failed"]) == 0
    write_command(folder, "prepare", StageCommand(argv=(str(folder), "write"), **about))
    subprocess.run(options, env=ENVIRONMENT, check=True)
    assert states(study)["prepare tiny.numbers"] == "done"
    assert "1 of 18 stages done" in shown(study, capsys, code=0)


def test_stages_are_looked_at_with_one_listing_of_a_folder(study, monkeypatch):
    study.finish()
    listed = []
    true_listing = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or true_listing(path))
    survey(study.plan, Queue())
    assert len(listed) == len(set(listed))
