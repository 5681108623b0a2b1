import os
import time

import pytest
import slurm_local
from fake_squeue import queue as queue
from processes import until

import experiments.slurm_queue
from experiments.slurm_queue import QueuedElement, is_gone, jobs_with_comment, living

FORGOTTEN = "slurm_load_jobs error: Invalid job id specified\n"


def test_what_has_not_ended_is_told_by_element_with_state_and_reason(queue):
    queue.says(
        "7_0|RUNNING|None\n7_1|FAILED|NonZeroExitCode\n7_2|PENDING|Resources, or priority\n9|COMPLETED|None\n"
    )
    assert living(["7", "9"]) == {
        "7_0": QueuedElement("7_0", "RUNNING", "None"),
        "7_2": QueuedElement("7_2", "PENDING", "Resources, or priority"),
    }
    assert queue.calls == ["-h -r -t all -j 7,9 -o %i|%T|%r|%k"]


def test_single_elements_of_an_array_can_be_asked_for(queue):
    queue.says("7_0|RUNNING|None\n7_1|RUNNING|None\n7_10|RUNNING|None\n")
    assert set(living(["7_1"])) == {"7_1"}
    assert not is_gone("7_10")
    assert is_gone("7_2")


def test_a_dependency_that_can_never_be_met_is_named(queue):
    queue.says("8_3|PENDING|DependencyNeverSatisfied\n")
    assert living(["8"])["8_3"].reason == "DependencyNeverSatisfied"


def test_a_state_that_no_list_of_ours_has_counts_as_living(queue):
    queue.says("7_0|HIBERNATING|None\n")
    assert set(living(["7"])) == {"7_0"}


def test_a_job_that_slurm_has_forgotten_is_absent_and_no_failure(queue):
    queue.says("", code=1, complaint=FORGOTTEN)
    assert living(["7"]) == {}
    assert is_gone("7_0")


def test_one_forgotten_job_among_several_hides_no_other(queue):
    refuses = 'echo "Invalid job id specified" >&2; exit 1'
    queue.runs(f'case "$*" in *"-j 7 "*) echo "7_0|RUNNING|None";; *) {refuses};; esac')
    assert set(living(["7", "8"])) == {"7_0"}
    assert len(queue.calls) == 3


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        ("", 1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"),
        ("7_0|RUNNING|None\n", 1, ""),
        ("Welcome to the cluster\n", 0, ""),
        ("7_[0-9]|PENDING|Resources\n", 0, ""),
        ("12|RUNNING|None\n", 0, ""),
    ],
)
def test_an_answer_that_is_none_is_not_taken_for_an_empty_queue(queue, text, code, complaint):
    queue.says(text, code, complaint)
    assert living(["7"]) is None
    assert not is_gone("7_0")


def test_without_squeue_nothing_is_known_and_nothing_gone(queue, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert living(["7"]) is None
    assert jobs_with_comment("") is None
    assert not is_gone("7")


def test_a_program_that_cannot_be_run_is_as_none(queue, monkeypatch):
    monkeypatch.setenv("PATH", str(queue.bin))
    (queue.bin / "squeue").write_text("no program\n")
    assert living(["7"]) is None


def test_a_slow_squeue_is_ended_with_all_it_started_and_not_asked_again_at_once(queue, monkeypatch, tmp_path):
    monkeypatch.setattr(experiments.slurm_queue, "_TIMEOUT_S", 0.3)
    queue.runs(f'sleep 60 & echo "$!" > "{tmp_path}/child"; wait')
    start = time.monotonic()
    assert not is_gone("7_0")
    assert not is_gone("8_0")
    assert living(["9"]) is None
    assert time.monotonic() - start < 5
    assert len(queue.calls) == 1
    child = int((tmp_path / "child").read_text())
    until(lambda: not os.path.exists(f"/proc/{child}") or is_zombie(child))


def is_zombie(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_all_elements_of_an_array_cost_one_call_for_half_a_minute(queue, monkeypatch):
    queue.says("".join(f"7_{index}|RUNNING|None\n" for index in range(1500)))
    assert [index for index in range(1600) if is_gone(f"7_{index}")] == list(range(1500, 1600))
    assert len(queue.calls) == 1
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 29)
    assert not is_gone("7_0")
    assert len(queue.calls) == 1
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 31)
    assert not is_gone("7_0")
    assert len(queue.calls) == 2


def test_many_jobs_are_asked_for_in_few_calls(queue):
    assert living(str(job) for job in range(10_000, 14_500)) == {}
    assert len(queue.calls) == 3


def test_settings_of_the_user_hide_no_jobs(queue, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    queue.runs('[ -z "$SQUEUE_STATES" ] && echo "7_0|RUNNING|None"; exit 0')
    assert set(living(["7"])) == {"7_0"}


@pytest.mark.parametrize("job", ["", "7;rm", "7_", "_1", "7_1_2", "abc", "-1"])
def test_what_is_no_job_id_is_refused_and_never_gone(queue, job):
    with pytest.raises(ValueError, match=f"job id {job!r}: .*as in '123' or '123_4'"):
        living([job])
    assert not is_gone(job)
    assert queue.calls == []


def test_jobs_are_found_by_the_beginning_of_their_comment(queue):
    queue.says(
        "7|PENDING|study a|b\n7|RUNNING|study a|b\n8|RUNNING|study b\n9|PENDING|(null)\n"
        "10|RUNNING|two\nlines\n11|CANCELLED|study a|c\n"
    )
    assert jobs_with_comment("study a") == {"7": "study a|b"}
    assert jobs_with_comment("study") == {"7": "study a|b", "8": "study b"}
    queue.says("", code=1)
    assert jobs_with_comment("study") is None


@pytest.fixture(scope="module")
def cluster():
    if not slurm_local.is_installed():
        pytest.skip("SLURM is not installed (apt-get install slurm-wlm)")
    with slurm_local.Cluster() as cluster:
        yield cluster


def submit(cluster, *options, script="sleep 60"):
    return cluster.run(
        "sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script, check=True
    ).stdout.strip()


@pytest.mark.slurm
def test_a_real_squeue_is_understood(cluster, queue, monkeypatch):
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    array = submit(cluster, "--array=0-3%2", "--comment=study a|1")
    later = submit(cluster, f"--dependency=afterok:{array}", "--comment=study b")
    failing = submit(cluster, "--array=0-1", script="exit 3")
    never = submit(cluster, "--array=0-1", f"--dependency=aftercorr:{failing}")
    cluster.run("scancel", f"{array}_3", check=True)

    def answer():
        queue.forget()
        return living([array, later, failing, never, "999999"])

    until(lambda: answer()[f"{array}_1"].state == "RUNNING" and f"{failing}_1" not in answer())
    until(lambda: answer()[f"{never}_1"].reason == "DependencyNeverSatisfied")
    found = answer()
    assert set(found) == {f"{array}_0", f"{array}_1", f"{array}_2", later, f"{never}_0", f"{never}_1"}
    assert (found[f"{array}_2"].state, found[f"{array}_2"].reason) == ("PENDING", "JobArrayTaskLimit")
    assert (found[later].state, found[later].reason) == ("PENDING", "Dependency")
    gone = [job for job in (f"{array}_0", f"{array}_3", f"{failing}_0", later, "999998") if is_gone(job)]
    assert gone == [f"{array}_3", f"{failing}_0", "999998"]
    assert jobs_with_comment("study a") == {array: "study a|1"}
    assert jobs_with_comment("study") == {array: "study a|1", later: "study b"}
