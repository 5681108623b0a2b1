"""What is left of a study, told from the attempts at what is done; and the lines of plan that say it."""

import time

import pytest
from manifests import changed, loaded, write

from experiments import plan
from experiments.attempt_records import append_record
from experiments.projection import Projection, seconds_taken
from experiments.stage_status import StageStatus, write_status


def record(outcome="done", wall_s=10.0, attempt=1, stage="train", stage_hash="abc", **more):
    facts = {"schema": 1, "stage": stage, "stage_hash": stage_hash, "attempt": attempt, "outcome": outcome}
    return facts | {"wall_s": wall_s, "cpus": 2, "gpus": 0, "energy_j": None} | more


def job(folder, shape="train m t pairs, 9 steps", stage="train", **more):
    facts = {"folder": folder, "stage": stage, "stage_hash": "abc", "shape": shape, "cpus": 2, "gpus": 0}
    return facts | more


def keep(root, folder, *records):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for each in records:
        append_record(root / folder, each)


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        ([record()], 10),
        ([record("interrupted", 5), record("lost", 7), record(attempt=2)], 22),
        ([record("failed", 5), record(attempt=2)], 15),
        ([record("lost", 5), record()], 15),  # its status was forgotten, not its checkpoints
        ([record("failed", 5), record("failed", 6, attempt=2), record()], 10),  # retried by hand
        ([record(wall_s=50), record()], 10),  # what it left was changed
        ([record("interrupted", 50, stage_hash="old"), record()], 10),
        ([record(stage="generate", wall_s=50), record()], 10),
        ([record(wall_s=None, outcome="lost"), record()], 10),
        ([record(), record("interrupted")], None),
        ([record("failed")], None),
        ([record(stage_hash="old")], None),
        ([], None),
    ],
)
def test_a_stage_took_all_attempts_that_led_up_to_its_end(records, seconds):
    assert seconds_taken(records, "train", "abc") == seconds


def test_a_stage_takes_the_median_of_the_finished_ones_like_it(tmp_path):
    for folder, wall_s in (("a", 10.0), ("b", 12.0), ("c", 90.0)):
        keep(tmp_path, folder, record(wall_s=wall_s))
    keep(tmp_path, "d", record("failed", 500.0))
    jobs = [job(folder) for folder in "abcde"]
    projection = Projection(tmp_path, jobs)
    assert projection.n_finished == 3
    assert [projection.seconds(each) for each in jobs] == [12.0] * 5


def test_training_falls_back_on_its_model_and_task_and_nothing_else_does(tmp_path):
    other, untrained = job("a", "train m t pairs, 3 steps"), job("b", "train m t untrained")
    keep(tmp_path, "a", record(wall_s=30.0), record(stage="generate", wall_s=4.0))
    keep(tmp_path, "b", record(wall_s=1.0))
    generate = job("a", "generate m t", stage="generate")
    projection = Projection(tmp_path, [other, untrained, generate])
    assert projection.seconds(job("new")) == 30.0
    assert projection.seconds(untrained) == 1.0
    assert projection.seconds(job("new", "train m other")) is None
    assert projection.seconds(job("new", "generate m t", stage="generate")) == 4.0
    assert projection.seconds(job("new", "generate m other", stage="generate")) is None
    assert projection.seconds(job("new", "train m2 t untrained")) is None


def test_hours_are_times_gpus_or_cores_and_what_is_unknown_is_counted(tmp_path):
    keep(tmp_path, "a", record(wall_s=1800.0))
    projection = Projection(tmp_path, [job("a")])
    left = [job("b", gpus=4), job("c", gpus=1, cpus=8), job("d", "score m t", stage="score")]
    assert projection.gpu_hours(left) == (2.5, 1)
    assert projection.cpu_hours(left) == (5.0, 1)
    assert projection.gpu_hours([]) == (0.0, 0)


def test_a_plan_without_shapes_and_a_study_without_folders_say_nothing(tmp_path):
    keep(tmp_path, "a", record())
    bare = {key: value for key, value in job("a").items() if key != "shape"}
    assert Projection(tmp_path, [bare]).seconds(bare) is None
    assert Projection(tmp_path / "none", [job("a")]).n_finished == 0


def test_thousands_of_cells_are_read_once_each(tmp_path, monkeypatch):
    read, n_cells = [], 1500
    jobs = [
        job(f"c{n}", f"{stage} m t", stage=stage)
        for n in range(n_cells)
        for stage in ("train", "generate", "score")
    ]
    lines = [record(stage=stage, host="x" * 40) for stage in ("train", "generate", "score")]
    keep(tmp_path, "c0", *lines)
    content = (tmp_path / "c0" / "attempts.jsonl").read_bytes()
    for n in range(1, n_cells, 2):
        (tmp_path / f"c{n}").mkdir()
        (tmp_path / f"c{n}" / "attempts.jsonl").write_bytes(content)
    from experiments import projection

    whole = projection.read_records
    monkeypatch.setattr(projection, "read_records", lambda folder: read.append(folder) or whole(folder))
    begin = time.process_time()
    told = Projection(tmp_path, jobs)
    assert all(told.seconds(each) == 10.0 for each in jobs)
    assert time.process_time() - begin < 1.5  # a third of the cells that have two seconds
    assert len(read) == len(set(read)) == n_cells
    assert told.n_finished == 3 * (1 + n_cells // 2)


def planned(capsys, folder, *options, **changes):
    path = write(folder, changed(**changes))
    assert plan.main([str(path), "--runs", str(folder / "runs"), *options]) == 0
    return capsys.readouterr().out.splitlines()


def finish(job, *records, state="done", attempt=1):
    """Leaves a stage's status and attempts as its process would."""
    job.folder.mkdir(parents=True, exist_ok=True)
    owner = {"host": "here", "pid": 1, "boot_id": "b", "token": "t", "start": 1.0, "heartbeat": 1.0}
    write_status(
        job.folder,
        StageStatus(stage=job.stage, state=state, stage_hash=job.stage_hash, attempt=attempt, **owner),
    )
    for each in records:
        append_record(job.folder, each | {"stage": job.stage, "stage_hash": job.stage_hash})


def test_plan_says_nothing_of_costs_before_something_has_ended(tmp_path, capsys):
    assert planned(capsys, tmp_path)[-1].startswith("18 stages: 0 done, 18 to run")


def test_plan_ends_with_what_is_to_go_and_what_was_used(tmp_path, capsys):
    gpus = {"default": {"gpus": 2, "nodes": 1}, "rules": [{"when": {"stage": "score"}, "set": {"gpus": 0}}]}
    jobs = {job.label: job for job in loaded(tmp_path, resources=gpus).graph.jobs.values()}
    used = record(wall_s=3600.0, gpus=2, energy_j=1.8e6)
    finish(jobs["train tiny.numbers.sft.s1"], record("failed", 900.0, gpus=2), used | {"attempt": 2})
    lines = planned(capsys, tmp_path, resources=gpus)
    # three trainings to go: of seed 2 like it, and of dpo by its model and task
    assert lines[-2:] == [
        "about 7.5 GPU hours to go, by the median of finished stages like them "
        "(14 of 17 stages to run have no finished one like them)",
        "used so far: 2.5 GPU hours, at least 0.5 kWh",
    ]


def test_plan_counts_cpu_hours_where_no_stage_asks_for_gpus(tmp_path, capsys):
    default = {"default": {"cpus": 2}}
    jobs = {job.label: job for job in loaded(tmp_path, resources=default).graph.jobs.values()}
    finish(jobs["train tiny.numbers.sft.s1"], record(wall_s=90.0))
    lines = planned(capsys, tmp_path, "--only", "method=sft,seed=2,stage=train", resources=default)
    told = "about 0.05 CPU hours to go, by the median of finished stages like them"
    # what seed 1 has used is not asked for; the data, which the training needs, is
    assert lines[-1] == f"{told} (1 of 2 stages to run have no finished one like them)"
    lines = planned(capsys, tmp_path, resources=default)
    assert lines[-1] == "used so far: 0.05 CPU hours"
    assert lines[-2].startswith("about 0.15 CPU hours to go")


def test_plan_gives_no_hours_that_it_has_no_basis_for(tmp_path, capsys):
    jobs = {job.label: job for job in loaded(tmp_path).graph.jobs.values()}
    finish(jobs["score tiny.numbers.sft.s1"], record(wall_s=1.0))
    lines = planned(capsys, tmp_path, "--only", "method=dpo,stage=train")
    assert lines[-1].startswith("no forecast: ")
    assert lines[-1].endswith("stages to run have no finished one like them")


def test_a_failed_stage_with_attempts_left_is_not_called_not_started(tmp_path, capsys):
    jobs = {job.label: job for job in loaded(tmp_path).graph.jobs.values()}
    finish(jobs["train tiny.numbers.sft.s1"], state="pending", attempt=1)
    finish(jobs["train tiny.numbers.sft.s2"], state="pending", attempt=0)  # it found no parent
    lines = planned(capsys, tmp_path)
    assert "train failed, will be tried again; generate not started" in lines[1]
    assert "train not started" in lines[2]
    assert "18 to run (17 not started, 1 failed, will be tried again)" in lines[-1]
