"""How a study's stages become tasks, and tasks arrays: nothing is lost, done twice, or started too early."""

from pathlib import Path

import pytest
from manifests import REMOVED
from slurm_planned import arrays, jobs_of

from experiments.schema_resources import Slurm
from slurm import sbatch
from slurm.tasks import make_tasks, seconds_of

SIMPO = {"from": "dpo", "params": {"beta": 2.0, "gamma": 0.5}}


def content(task):
    return [(job.stage, str(job.unit.document["name"]).removeprefix("tiny.numbers.")) for job in task.jobs]


def contents(tasks):
    return [content(task) for task in tasks]


# -- tasks


def test_what_a_cell_needs_no_one_else_for_is_one_task(tmp_path):
    tasks = make_tasks(jobs_of(tmp_path, seeds=[1]), fuse=True)
    pairs, reference = "sft.s1", "tiny.numbers.sft.s1--tiny.numbers.sft.s1"
    assert contents(tasks[:1]) == [[("prepare", "tiny.numbers"), ("prepare", "test")]]
    assert [kind for kind, _ in content(tasks[1])] == ["train", "pairs", "reference"]
    assert content(tasks[1])[:2] == [("train", "sft.s1"), ("pairs", pairs)]
    assert reference.removeprefix("tiny.numbers.") in content(tasks[1])[2][1]
    assert contents(tasks[2:]) == [
        [("generate", "sft.s1"), ("score", "sft.s1")],
        [("train", "dpo.s1"), ("generate", "dpo.s1"), ("score", "dpo.s1")],
    ]
    assert [[need.kind for need in task.needs] for task in tasks] == [[], ["prepare"], ["train"], ["train"]]


def test_without_fusing_each_stage_but_the_preparations_is_a_task(tmp_path):
    jobs = jobs_of(tmp_path)
    tasks = make_tasks(jobs, fuse=False)
    assert len(tasks) == len(jobs) - 1
    assert all(len(task.jobs) == 1 for task in tasks[1:])


def test_stages_that_ask_for_other_resources_are_not_fused(tmp_path):
    rule = {"when": {"stage": "score"}, "set": {"cpus": 4}}
    tasks = make_tasks(jobs_of(tmp_path, resources={"rules": [rule]}), fuse=True)
    alone = [content(task) for task in tasks if task.kind == "score"]
    assert len(alone) == 4
    assert all(len(each) == 1 for each in alone)
    assert {task.limits.cpus for task in tasks if task.kind == "score"} == {4}
    assert {task.limits.cpus for task in tasks if task.kind != "score"} == {1}


def test_a_longer_time_does_not_part_stages_and_the_longest_is_asked_for(tmp_path):
    rules = [
        {"when": {"stage": "train"}, "set": {"time": "90"}},
        {"when": {"stage": "score"}, "set": {"time": "1:31:00"}},
    ]
    tasks = make_tasks(jobs_of(tmp_path, resources={"rules": rules}), fuse=True)
    child = next(task for task in tasks if ("train", "dpo.s1") in content(task))
    assert [kind for kind, _ in content(child)] == ["train", "generate", "score"]
    assert child.limits.time == "1:31:00"


def test_no_time_limit_at_all_is_longer_than_any(tmp_path):
    rules = [
        {"when": {"stage": "train"}, "set": {"time": "0"}},
        {"when": {"stage": "score"}, "set": {"time": "1-00"}},
    ]
    tasks = make_tasks(jobs_of(tmp_path, resources={"rules": rules}), fuse=True)
    assert {task.limits.time for task in tasks if ("train", "dpo.s1") in content(task)} == {"0"}


def test_a_parent_is_not_held_up_by_its_own_generation(tmp_path):
    tasks = make_tasks(jobs_of(tmp_path, methods__simpo=SIMPO, seeds=[1]), fuse=True)
    by_first = {content(task)[0]: task for task in tasks}
    assert ("generate", "sft.s1") in by_first
    assert ("generate", "dpo.s1") in by_first
    simpo = by_first["train", "simpo.s1"]
    assert [kind for kind, _ in content(simpo)] == ["train", "generate", "score"]
    assert simpo.needs == {by_first["train", "dpo.s1"]}  # which implies sft, its pairs, and the preparation


def test_a_model_that_is_only_measured_needs_but_the_preparation(tmp_path):
    methods = {"base": {"train": False}}
    study = {"methods": methods, "tasks__numbers__pairs": REMOVED, "report": {"baseline": "base"}}
    tasks = make_tasks(jobs_of(tmp_path, **study), fuse=True)
    assert contents(tasks[1:]) == [[("train", "base"), ("generate", "base"), ("score", "base")]]


def test_outputs_of_others_wait_for_the_preparation_and_for_no_training(tmp_path):
    tests = {"wmt": {"dataset": str(rows(tmp_path, "wmt"))}}
    (tmp_path / "google.txt").write_text("eins\nzwei\n")
    tasks = make_tasks(
        jobs_of(
            tmp_path,
            tasks__numbers__data=REMOVED,
            tasks__numbers__pairs=REMOVED,
            tasks__numbers__train={"dataset": str(rows(tmp_path, "train"))},
            tasks__numbers__tests=tests,
            models__tiny__from_scratch__tokenizer={"vocab_size": 280},
            methods={"google": {"outputs": {"wmt": str(tmp_path / "google.txt")}}},
            report={"baseline": "google"},
        ),
        fuse=True,
    )
    assert [[kind for kind, _ in content(task)] for task in tasks] == [
        ["prepare", "prepare"],
        ["generate", "score"],
    ]
    assert list(arrays(tasks)) == ["prepare-1", "generate-1"]
    generate = arrays(tasks)["generate-1"]
    assert generate.follows is None
    assert [(array.name, index) for array, index in generate.needs] == [("prepare-1", 0)]


def rows(folder, name):
    path = folder / f"{name}.jsonl"
    path.write_text(
        '{"id": "a", "source": "one", "reference": "eins"}\n'
        '{"id": "b", "source": "two", "reference": "zwei"}\n'
    )
    return path


def test_models_do_not_wait_for_one_another_but_are_prepared_together(tmp_path):
    other = {"from_scratch": {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2}}
    tasks = make_tasks(jobs_of(tmp_path, models__other=other, seeds=[1]), fuse=True)
    assert [task.kind for task in tasks].count("prepare") == 1
    cells = [task for task in tasks if task.kind != "prepare"]
    assert {model_of(task) for task in cells} == {"tiny", "other"}
    for task in cells:
        assert {model_of(above) for above in task.above if above.kind != "prepare"} <= {model_of(task)}


def model_of(task):
    models = {str(job.unit.document["name"]).split(".")[0] for job in task.jobs}
    assert len(models) == 1
    return models.pop()


def test_a_stage_that_is_done_is_waited_for_by_none(tmp_path):
    jobs = [job for job in jobs_of(tmp_path, seeds=[1]) if job.stage in ("generate", "score")]
    tasks = make_tasks(jobs, fuse=True)
    assert contents(tasks) == [
        [("generate", "sft.s1"), ("score", "sft.s1")],
        [("generate", "dpo.s1"), ("score", "dpo.s1")],
    ]
    assert all(not task.needs and not task.queued for task in tasks)
    assert list(arrays(tasks)) == ["generate-1"]


def test_a_stage_that_is_queued_already_is_waited_for_by_its_element(tmp_path):
    jobs = jobs_of(tmp_path, seeds=[1])
    queued = {job.key: "17_0" for job in jobs if job.stage == "prepare"}
    queued |= {job.key: "18_3" for job in jobs if job.stage == "train" and "sft" in job.label}
    todo = [job for job in jobs if job.key not in queued]
    tasks = make_tasks(todo, fuse=True, queued=queued)
    assert {
        content(task)[0]: sorted(task.queued) for task in tasks if content(task)[0][0] != "reference"
    } == {
        ("generate", "sft.s1"): ["17_0", "18_3"],
        ("pairs", "sft.s1"): ["17_0", "18_3"],
        ("train", "dpo.s1"): [],  # its pairs wait already
    }


# -- arrays


def test_the_children_of_each_parent_are_an_array_that_waits_for_that_parent_alone(tmp_path):
    grid = {"beta": [0.1, 0.2, 0.3]}
    made = arrays(
        make_tasks(jobs_of(tmp_path, methods__dpo={"from": "sft", "params": {}, "grid": grid}), fuse=True)
    )
    children = [a for a in made.values() if a.kind == "train" and a.name != "train-1"]
    assert [len(a.tasks) for a in children] == [3, 3]
    assert [[(n.name, i) for n, i in a.needs] for a in children] == [[("train-1", 0)], [("train-1", 1)]]
    for child, seed in zip(children, ("s1", "s2"), strict=True):
        assert all(content(task)[0][1].endswith(seed) for task in child.tasks.values())


def test_measuring_follows_training_element_by_element(tmp_path):
    made = arrays(make_tasks(jobs_of(tmp_path, seeds=[1, 2, 3]), fuse=True))
    generate = made["generate-1"]
    assert generate.follows is made["train-1"]
    assert not generate.needs
    for index, task in generate.tasks.items():
        assert content(task)[0][1] == content(made["train-1"].tasks[index])[0][1]


def test_an_array_that_follows_has_holes_where_nothing_is_missing(tmp_path):
    jobs = jobs_of(tmp_path, seeds=[1, 2, 3, 4])
    gone = ("sft.s2",)
    todo = [
        job
        for job in jobs
        if not (job.stage in ("generate", "score") and str(job.unit.document["name"]).endswith(gone))
    ]
    made = arrays(make_tasks(todo, fuse=True))
    generate = made["generate-1"]
    assert sorted(generate.tasks) == [0, 2, 3]
    assert f"--array=0,2-3%{generate.max_parallel}" in options(generate, {"train-1": "7"})
    assert "--dependency=aftercorr:7" in options(generate, {"train-1": "7"})


def test_no_array_is_larger_than_slurm_allows(tmp_path):
    made = arrays(make_tasks(jobs_of(tmp_path, seeds=list(range(1, 13))), fuse=True), max_size=5)
    sizes = {name: len(array.tasks) for name, array in made.items()}
    assert [sizes[f"train-{n}"] for n in (1, 2, 3)] == [5, 5, 2]
    assert [made[f"generate-{n}"].follows.name for n in (1, 2, 3)] == ["train-1", "train-2", "train-3"]
    assert all(max(array.tasks) < 5 for array in made.values())


def test_few_running_elements_are_shared_out_and_the_rest_queue_behind(tmp_path):
    tasks = make_tasks(jobs_of(tmp_path, seeds=list(range(1, 13))), fuse=True)
    one = arrays(tasks, max_size=5, max_parallel=2)
    first, second, third = (one[f"train-{n}"] for n in (1, 2, 3))
    assert [a.max_parallel for a in (first, second, third)] == [1, 1, 1]
    assert [a.after for a in (first, second, third)] == [None, None, first]
    assert "--dependency=afterany:1,afterany:2" in options(third, {"prepare-1": "1", "train-1": "2"})
    many = arrays(tasks, max_size=5, max_parallel=8)
    assert [many[f"train-{n}"].max_parallel for n in (1, 2, 3)] == [3, 3, 1]


def options(array, ids, **slurm):
    return sbatch.options(array, ids, Path("/runs/small/submissions/x"), "small", Slurm(**slurm))


def test_without_cancelling_what_can_never_start_everything_starts_when_its_parents_have_ended(tmp_path):
    made = arrays(make_tasks(jobs_of(tmp_path), fuse=True))
    ids = {name: str(number) for number, name in enumerate(made, 1)}
    for array in made.values():
        strict, loose = options(array, ids), options(array, ids, kill_on_invalid_dep=False)
        assert ("--kill-on-invalid-dep=yes" in strict) == bool(array.needs or array.follows)
        assert not any("kill-on" in word or "afterok" in word or "aftercorr" in word for word in loose)
        assert [word.split(":")[1:] for word in strict if word.startswith("--dep")] == [
            word.split(":")[1:] for word in loose if word.startswith("--dep")
        ]


# -- words of SLURM


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("0", 0),
        ("90:30", 5430),
        ("04:00:00", 14400),
        ("1-0", 86400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-00:00:01", 172801),
    ],
)
def test_times_are_read_as_slurm_reads_them(time, seconds):
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(
    ("indices", "words"),
    [([0], "0"), ([0, 1], "0-1"), ([3], "3"), ([0, 2, 4], "0,2,4"), ([0, 1, 2, 7, 9, 10], "0-2,7,9-10")],
)
def test_indices_are_written_as_ranges(indices, words):
    assert sbatch._ranges(indices) == words


@pytest.mark.parametrize(
    ("time", "lead", "seconds"),
    [(None, 240, 240), ("04:00:00", 240, 240), ("00:04:00", 240, 60), ("00:00:01", 240, 1), ("0", 240, 240)],
)
def test_a_job_is_told_early_enough_and_has_three_quarters_of_its_time_before(time, lead, seconds):
    assert sbatch._lead(time, lead) == seconds


def test_what_a_stage_asks_for_is_what_sbatch_is_asked_for(tmp_path):
    limits = {"cpus": 4, "gpus": 2, "mem": "48G", "time": "04:00:00"}
    tasks = make_tasks(
        jobs_of(tmp_path, resources__default=limits, training__per_device_batch_size=2), fuse=True
    )
    words = options(arrays(tasks)["train-1"], {"prepare-1": "1"}, gpu_type="a100", qos="normal")
    wanted = {"--cpus-per-task=4", "--gres=gpu:a100:2", "--mem=48G", "--time=04:00:00", "--qos=normal"}
    assert wanted | {"--nodes=1", "--signal=B:USR1@240", "--requeue"} <= set(words)
    words = options(
        arrays(tasks)["train-1"], {"prepare-1": "1"}, gpu_option="gpus-per-node", extra=["--nice=5"]
    )
    assert "--gpus-per-node=2" in words
    assert words.index("--nice=5") > words.index("--gpus-per-node=2")
    prepare = options(arrays(tasks)["prepare-1"], {})
    assert not any("gpu" in word for word in prepare)
    assert not any("dependency" in word for word in prepare)
