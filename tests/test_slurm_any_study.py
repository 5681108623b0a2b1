"""Whatever the study: every open stage is queued once, and never before what it needs."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slurm_planned import arrays, jobs_of

from experiments.schema_resources import Limits
from slurm.arrays import make_arrays
from slurm.tasks import make_tasks

RULES = [
    {"when": {"stage": "train"}, "set": {"gpus": 1}},
    {"when": {"method": "m1"}, "set": {"cpus": 2, "time": "01:00:00"}},
    {"when": {"stage": ["score", "pairs"]}, "set": {"mem": "4G"}},
    {"when": {"model": "other", "stage": "prepare"}, "set": {"mem": "9G"}},
    {"when": {"seed": 2}, "set": {"time": "2-00"}},
]


@st.composite
def studies(draw):
    methods = {"sft": {"params": {}}}
    for number in range(draw(st.integers(0, 3))):
        parent = draw(st.sampled_from([name for name, entry in methods.items() if "grid" not in entry]))
        kind = draw(st.sampled_from(["dpo", "simpo", "cpo"]))
        entry = {"method": kind, "from": parent, "params": {}}
        if kind != "simpo" and draw(st.booleans()):
            entry["grid"] = {"beta": [0.1, 0.2, 0.3][: draw(st.integers(2, 3))]}
        methods[f"m{number}"] = entry
    if draw(st.booleans()):
        methods["base"] = {"train": False}
    changes = {"methods": methods, "seeds": list(range(1, 1 + draw(st.integers(1, 5))))}
    changes["from_seed"] = draw(st.sampled_from(["same", "first"]))
    if draw(st.booleans()):
        changes["models__other"] = {"from_scratch": {"hidden_size": 32, "layers": 2, "heads": 2}}
    rules = [rule for rule in RULES if draw(st.booleans())]
    known = {
        "method": {*methods},
        "seed": {*changes["seeds"]},
        "model": {"tiny", *(["other"] if "models__other" in changes else [])},
    }
    changes["resources"] = {
        "rules": [r for r in rules if all(r["when"].get(k, next(iter(v))) in v for k, v in known.items())]
    }
    return changes


@given(
    study=studies(),
    fuse=st.booleans(),
    max_size=st.integers(1, 7),
    max_parallel=st.integers(1, 9),
    choose=st.randoms(use_true_random=False),
    share=st.sampled_from([0.0, 0.2, 0.7]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_open_stage_is_queued_once_and_never_before_what_it_needs(
    tmp_path_factory, study, fuse, max_size, max_parallel, choose, share
):
    jobs = jobs_of(tmp_path_factory.mktemp("study"), **study)
    done = {job.key for job in jobs if choose.random() < share}
    queued = {
        job.key: f"{choose.randint(1, 3)}_{choose.randint(0, 2)}"
        for job in jobs
        if job.key not in done and choose.random() < share / 2
    }
    todo = [job for job in jobs if job.key not in done and job.key not in queued]
    tasks = make_tasks(todo, fuse=fuse, queued=queued)
    check_tasks(tasks, todo, done, queued)
    made = make_arrays(tasks, max_size=max_size, max_parallel=max_parallel)
    check_arrays(made, tasks, max_size)
    check_parallel(made, max_parallel)


def check_tasks(tasks, todo, done, queued):
    of = {job.key: task for task in tasks for job in task.jobs}
    assert sorted(of) == sorted(job.key for job in todo)
    assert sum(len(task.jobs) for task in tasks) == len(todo)
    for number, task in enumerate(tasks):
        assert all(tasks.index(need) < number for need in task.needs)
        for need in task.needs:
            assert not any(need in other.above for other in task.needs), "is implied by another"
        before = set()
        for job in task.jobs:
            for needed in job.needs:
                if needed.key in queued:
                    assert any(queued[needed.key] in each.queued for each in (task, *task.above))
                elif needed.key not in done:
                    assert needed.key in before or of[needed.key] in task.above
            before.add(job.key)
        assert not any(task.queued & each.queued for each in task.above), "is waited for by one above"
        above = set(task.needs).union(*(need.above for need in task.needs))
        assert above == task.above


def check_arrays(made, tasks, max_size):
    place = {task: (array, index) for array in made for index, task in array.tasks.items()}
    assert set(place) == set(tasks)
    assert sum(len(array.tasks) for array in made) == len(tasks)
    assert len({array.name for array in made}) == len(made)
    for number, array in enumerate(made):
        assert 0 < len(array.tasks) <= max_size
        assert 0 <= min(array.tasks) <= max(array.tasks) < max_size
        named = [other for other, _ in array.needs] + [a for a in (array.follows, array.after) if a]
        assert all(made.index(other) < number for other in named)
        for index, task in array.tasks.items():
            waits = set(array.needs) | ({(array.follows, index)} if array.follows else set())
            assert waits == {place[need] for need in task.needs}
            assert set(array.queued) == task.queued
            assert array.limits == task.limits
            assert {job.limits.cpus for job in task.jobs} == {task.limits.cpus}


def check_parallel(made, max_parallel):
    """Arrays that may run at a time: one of each queue."""
    for kind in {array.kind for array in made}:
        queues = {}
        for level in {depth(array) for array in made if array.kind == kind}:
            for array in (a for a in made if a.kind == kind and depth(a) == level):
                head = array
                while head.after is not None:
                    head = head.after
                queues[level, head.name] = max(queues.get((level, head.name), 0), array.max_parallel)
            assert sum(n for (at, _), n in queues.items() if at == level) <= max_parallel


def depth(array):
    above = [other for other, _ in array.needs] + ([array.follows] if array.follows else [])
    return 1 + max(map(depth, above), default=-1)


def test_limits_that_differ_are_asked_for_by_arrays_of_their_own(tmp_path):
    rules = [{"when": {"seed": 2}, "set": {"time": "2-00"}}]
    made = arrays(make_tasks(jobs_of(tmp_path, resources={"rules": rules}), fuse=True))
    trained = [a for a in made.values() if a.kind == "train" and (a.needs[0][0].name == "prepare-1")]
    assert [a.limits for a in trained] == [Limits(), Limits(time="2-00")]
