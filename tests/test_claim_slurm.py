"""Claims of processes that SLURM runs: who is gone when the queue says so, and who succeeds himself."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_local
from fake_squeue import queue as queue
from processes import TIMEOUT_S, fork, until, wait

from experiments.claim import Claim, claim_state
from experiments.owner import is_alive, parse_owner
from experiments.stage_status import effective_state

ROOT = Path(__file__).parent.parent
HEARTBEAT_S = 60.0
ELEMENT = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "11"}


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def claim_from(folder, **facts):
    """The claim of a process that this machine cannot see, and its owner."""
    assert wait(fork(lambda: 0 if Claim(folder, "train").acquire() else 1)) == 0
    path = folder / "claim.train"
    elsewhere = {"host": "n2", "boot_id": "other", "heartbeat_s": HEARTBEAT_S, "slurm_job": "7_3"}
    path.write_text(json.dumps(json.loads(path.read_text()) | elsewhere | facts))
    return parse_owner(path.read_bytes())


def silent_for(folder, seconds):
    os.utime(folder / "claim.train", (time.time() - seconds,) * 2)


def kind(folder):
    return claim_state(folder, "train").kind


# -- the queue as a hint --------------------------------------------------------------------------


def test_a_silent_owner_whose_job_has_left_the_queue_is_gone(tmp_path, queue):
    claim_from(tmp_path)
    silent_for(tmp_path, 11 * HEARTBEAT_S)
    queue.says("7_2|RUNNING|None\n")
    assert kind(tmp_path) == "stale"
    with Claim(tmp_path, "train") as claim:
        assert claim.still_ours()


def test_an_owner_that_was_heard_of_is_not_gone_whatever_the_queue_says(tmp_path, queue):
    claim_from(tmp_path)
    silent_for(tmp_path, 9 * HEARTBEAT_S)
    queue.says("", code=1, complaint="slurm_load_jobs error: Invalid job id specified\n")
    assert kind(tmp_path) == "held"
    assert not Claim(tmp_path, "train").acquire()


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED", "COMPLETING"])
def test_a_silent_owner_whose_job_is_in_the_queue_keeps_its_claim(tmp_path, queue, state):
    claim_from(tmp_path)
    silent_for(tmp_path, 1e6)
    queue.says(f"7_3|{state}|None\n")
    assert kind(tmp_path) == "held"


@pytest.mark.parametrize("trouble", ["missing", "failing", "slow"])
def test_a_queue_that_does_not_answer_leaves_every_claim_held(tmp_path, queue, trouble, monkeypatch):
    monkeypatch.setattr("experiments.slurm_queue._TIMEOUT_S", 0.2)
    claim_from(tmp_path)
    silent_for(tmp_path, 1e6)
    if trouble == "missing":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif trouble == "failing":
        queue.says("", code=1, complaint="slurm_load_jobs error: Unable to contact slurm controller\n")
    else:
        queue.runs("exec sleep 30")
    assert kind(tmp_path) == "held"
    assert not Claim(tmp_path, "train").acquire()


def test_an_owner_that_slurm_did_not_start_is_not_looked_for_in_the_queue(tmp_path, queue):
    claim_from(tmp_path, slurm_job=None)
    silent_for(tmp_path, 1e6)
    assert kind(tmp_path) == "held"
    assert queue.calls == []


def test_a_process_on_this_machine_is_seen_and_the_queue_is_not_asked(tmp_path, queue):
    assert wait(fork(lambda: 0 if claimed_as(tmp_path, 0) else 1)) == 0
    assert kind(tmp_path) == "stale"
    assert queue.calls == []


def test_free_stages_cost_no_call_and_claims_of_one_array_cost_one(tmp_path, queue):
    folders = [tmp_path / str(index) for index in range(300)]
    for folder in folders:
        folder.mkdir()
    start = time.monotonic()
    assert {effective_state(folder, "train", "abc") for folder in folders for _ in range(50)} == {"pending"}
    assert time.monotonic() - start < 5, "15,000 free stages must not take long"
    assert queue.calls == []
    facts = claim_from(folders[0]).to_json()
    for index, folder in enumerate(folders):
        (folder / "claim.train").write_text(json.dumps(json.loads(facts) | {"slurm_job": f"7_{index}"}))
        silent_for(folder, 1e6)
    queue.says("".join(f"7_{index}|RUNNING|None\n" for index in range(100)))
    assert [kind(folder) for folder in folders] == ["held"] * 100 + ["stale"] * 200
    assert len(queue.calls) == 1


# -- a requeued job and its earlier copy ------------------------------------------------------------


def be_element(restart, **others):
    os.environ.update(ELEMENT | others)
    os.environ.pop("SLURM_RESTART_COUNT", None)
    if restart:  # SLURM does not set it at the first start
        os.environ["SLURM_RESTART_COUNT"] = str(restart)


def claimed_as(folder, restart, **others):
    be_element(restart, **others)
    claim = Claim(folder, "train")
    return claim if claim.acquire() else None


def holding(folder, restart, **others):
    """A process that claims as this copy of the element and then does nothing for long."""

    def work():
        if claimed_as(folder, restart, **others) is None:
            return 75
        time.sleep(TIMEOUT_S)
        return 0

    pid = fork(work)
    until(lambda: kind(folder) == "held" and claim_state(folder, "train").owner.pid == pid)
    return pid


@pytest.mark.parametrize(("old", "new"), [(0, 1), (1, 2), (0, 7)])
def test_a_requeued_element_kills_its_earlier_copy_and_owns_the_stage_at_once(
    tmp_path, queue, capfd, old, new
):
    earlier = holding(tmp_path, old)
    later = holding(tmp_path, new)
    assert wait(earlier) == -9
    assert is_alive(claim_state(tmp_path, "train").owner)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["claim.train", f"claim.train.{claim_state(tmp_path, 'train').owner.token}"]
    said = capfd.readouterr().err
    assert f"pid {earlier} on " in said
    assert "SLURM job 7_3, since " in said
    assert "this job before it was requeued, still running: killed" in said
    assert queue.calls == []
    os.kill(later, 9)
    wait(later)


def test_an_earlier_copy_that_cannot_be_seen_is_succeeded_at_once(tmp_path, queue):
    old = claim_from(tmp_path, slurm_restart=1)
    queue.says("7_3|RUNNING|None\n")
    assert wait(fork(lambda: 0 if claimed_as(tmp_path, 2) else 1)) == 0
    assert claim_state(tmp_path, "train").owner != old
    assert not (tmp_path / f"claim.train.{old.token}").exists()


def test_an_earlier_copy_that_died_while_taking_over_elsewhere_bars_nobody(tmp_path, queue):
    old = claim_from(tmp_path)
    right = tmp_path / f"claim.train.{old.token}.successor.1"
    facts = json.loads(old.to_json()) | {"token": "e" * 32, "slurm_restart": 1}
    right.write_text(json.dumps(facts))
    queue.says("7_3|RUNNING|None\n")
    assert wait(fork(lambda: 0 if claimed_as(tmp_path, 2) else 1)) == 0
    assert not right.exists()


@pytest.mark.parametrize(
    ("restart", "others"),
    [
        (1, {"SLURM_ARRAY_TASK_ID": "4"}),
        (1, {"SLURM_ARRAY_JOB_ID": "8"}),
        (0, {}),
        (1, {"SLURM_CLUSTER_NAME": "another"}),
    ],
    ids=["another element", "another array", "the same copy", "another cluster's"],
)
def test_nobody_else_takes_from_a_living_element(tmp_path, queue, restart, others):
    holder = holding(tmp_path, 0, SLURM_CLUSTER_NAME="one")
    assert wait(fork(lambda: 0 if claimed_as(tmp_path, restart, **others) else 75)) == 75
    assert claim_state(tmp_path, "train").owner.pid == holder
    os.kill(holder, 9)
    wait(holder)


def test_an_earlier_copy_does_not_take_from_a_later_one(tmp_path, queue):
    later = holding(tmp_path, 1)
    assert wait(fork(lambda: 0 if claimed_as(tmp_path, 0) else 75)) == 75
    os.kill(later, 9)
    wait(later)


def test_a_process_never_kills_itself(tmp_path, monkeypatch):
    with Claim(tmp_path, "train") as claim:
        facts = json.loads(claim.owner.to_json()) | {"slurm_job": "7_3", "slurm_restart": None}
        (tmp_path / "claim.train").write_text(json.dumps(facts))
        for name, value in (ELEMENT | {"SLURM_RESTART_COUNT": "1"}).items():
            monkeypatch.setenv(name, value)
        assert not Claim(tmp_path, "train").acquire()


def test_claims_written_before_clusters_were_recorded_are_read(tmp_path):
    owner = claim_from(tmp_path)
    facts = json.loads(owner.to_json())
    del facts["slurm_cluster"]
    (tmp_path / "claim.train").write_text(json.dumps(facts))
    assert claim_state(tmp_path, "train").owner == owner


# -- a real cluster ---------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from experiments.claim import Claim
claim = Claim(Path(sys.argv[1]), "train", heartbeat_s=0.2)
sys.exit(75) if not claim.acquire() else time.sleep(120)
"""


def stepd_of(pid):
    """The slurmstepd above a process of a job."""
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        if "slurmstepd" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
        pid = int(stat.rpartition(")")[2].split()[1])
    raise AssertionError("no slurmstepd above it")


@pytest.mark.slurm
@pytest.mark.slow
def test_an_element_that_slurm_lost_and_requeued_ends_its_living_copy(tmp_path):
    if not slurm_local.is_installed():
        pytest.skip("SLURM is not installed (apt-get install slurm-wlm)")
    folder, script = tmp_path / "cell", tmp_path / "hold.py"
    folder.mkdir()
    script.write_text(HOLD)
    run = f"cd '{ROOT}' && PYTHONPATH='{ROOT}' '{sys.executable}' '{script}' '{folder}'"
    with slurm_local.Cluster(gpus=0) as cluster:
        options = ["--array=0-0", "--requeue", f"--output={tmp_path}/%a.log", "--open-mode=append"]
        job = cluster.run("sbatch", "--parsable", *options, "--wrap", run, check=True).stdout.strip()
        until(lambda: kind(folder) == "held")
        first = claim_state(folder, "train").owner
        assert (first.slurm_job, first.slurm_restart) == (f"{job}_0", None)
        os.kill(stepd_of(first.pid), 9)
        subprocess.run(["scontrol", "requeue", f"{job}_0"], env=cluster.environment, check=True, timeout=30)
        assert is_alive(first), "SLURM has ended the first copy itself, so nothing is tested"
        until(lambda: claim_state(folder, "train").owner not in (None, first), timeout_s=60)
        second = claim_state(folder, "train").owner
        assert (second.slurm_job, second.slurm_restart) == (f"{job}_0", 1)
        assert is_alive(second)
        assert not is_alive(first)
