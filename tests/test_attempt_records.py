"""attempts.jsonl: one line for each attempt, whatever became of it, and no stage fails for it."""

import errno
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import fork, until, wait
from toy_stage import plan, start, state

from experiments import attempt_records
from experiments.attempt_records import append_record, read_records, record_lost
from experiments.claim import Claim
from experiments.code_version import code_version, read_code_version
from experiments.owner import parse_owner
from experiments.stage_command import read_command, write_command
from experiments.stage_process import run_stage
from experiments.stage_status import StageStatus, read_status, write_status

KEYS = {
    "schema", "stage", "stage_hash", "attempt", "outcome", "exit_code", "start", "end", "wall_s", "cpus",
    "gpus", "gpu_s", "tokens", "peak_memory_bytes", "peak_gpu_memory_bytes", "energy_j", "host", "slurm_job",
    "slurm_restart", "code",
}  # fmt: skip


def line(n, **facts):
    """A record of attempt ``n`` that can be read."""
    about = {"schema": 1, "stage": "train", "stage_hash": "abc", "attempt": n, "outcome": "done"}
    return about | {"wall_s": 1.0, "cpus": 1, "gpus": None, "energy_j": None, **facts}


def outcomes(folder):
    return [(record["attempt"], record["outcome"], record["exit_code"]) for record in read_records(folder)]


def running(**more):
    """What a process that was killed has left."""
    facts = {
        "host": "node7",
        "pid": 1,
        "boot_id": "b",
        "token": "0" * 32,
        "start": 1000.0,
        "heartbeat": 1090.5,
    }
    return StageStatus(stage="train", state="running", stage_hash="abc", attempt=1, **(facts | more))


def test_a_finished_attempt_leaves_one_line_with_all_facts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    plan(tmp_path, "write")
    write_command(tmp_path, "train", replace(read_command(tmp_path, "train"), cpus=4, nodes=2))
    assert run_stage(tmp_path, "train") == 0
    (record,) = read_records(tmp_path)
    assert set(record) == KEYS
    assert (record["stage"], record["stage_hash"], record["attempt"]) == ("train", "abc", 1)
    assert (record["outcome"], record["exit_code"], record["schema"]) == ("done", 0, 1)
    assert (record["cpus"], record["gpus"], record["gpu_s"]) == (8, 0, 0)
    assert (record["slurm_job"], record["slurm_restart"]) == ("77", 2)
    status = read_status(tmp_path, "train")
    assert (record["start"], record["end"], record["host"]) == (status.start, status.end, status.host)
    assert 0 <= record["wall_s"] <= status.end - status.start + 0.01
    assert record["peak_memory_bytes"] > 1_000_000
    assert record["tokens"] is record["energy_j"] is record["peak_gpu_memory_bytes"] is None
    assert record["code"] == code_version()


def test_every_attempt_has_its_line_and_a_missing_parent_none(tmp_path):
    plan(tmp_path, "give", "3", max_attempts=2)
    assert [run_stage(tmp_path, "train") for _ in range(3)] == [3, 3, 3]
    assert outcomes(tmp_path) == [(1, "failed", 3), (2, "failed", 3)]
    for code in (65, 69):
        folder = tmp_path / str(code)
        folder.mkdir()
        plan(folder, "give", str(code))
        assert run_stage(folder, "train") == code
    assert outcomes(tmp_path / "65") == [(1, "failed", 65)]
    assert outcomes(tmp_path / "69") == []


def test_a_done_or_given_up_stage_that_is_asked_again_leaves_no_second_line(tmp_path):
    plan(tmp_path, "write")
    assert [run_stage(tmp_path, "train") for _ in range(2)] == [0, 0]
    assert outcomes(tmp_path) == [(1, "done", 0)]


def test_an_interrupted_attempt_keeps_its_number_over_two_lines(tmp_path):
    plan(tmp_path, "give", "85")
    assert run_stage(tmp_path, "train") == 85
    plan(tmp_path, "write")
    assert run_stage(tmp_path, "train") == 0
    assert outcomes(tmp_path) == [(1, "interrupted", 85), (1, "done", 0)]


def test_the_line_of_a_killed_attempt_is_written_by_the_next_holder(tmp_path):
    plan(tmp_path, "sleep_once")
    child = start(tmp_path)
    until(lambda: (tmp_path / "started").exists())
    killed = read_status(tmp_path, "train")
    child.kill()
    child.communicate(timeout=20)
    assert read_records(tmp_path) == []
    assert run_stage(tmp_path, "train") == 0
    assert outcomes(tmp_path) == [(1, "lost", None), (2, "done", 0)]
    lost = read_records(tmp_path)[0]
    assert set(lost) == KEYS
    assert (lost["start"], lost["end"], lost["host"]) == (killed.start, killed.heartbeat, killed.host)
    assert lost["tokens"] is lost["peak_memory_bytes"] is lost["code"] is None


def test_a_lost_attempt_costs_what_its_heartbeats_cover_and_names_its_job(tmp_path):
    plan(tmp_path, "write")
    write_command(tmp_path, "train", replace(read_command(tmp_path, "train"), gpus=4, nodes=2))
    with Claim(tmp_path, "train") as claim:
        dead = json.loads((tmp_path / "claim.train").read_text()) | {"slurm_job": "12_3", "token": "0" * 32}
        claim.held_by = parse_owner(json.dumps(dead).encode())
        record_lost(claim, running())
        record_lost(claim, running())  # as by a holder who dies before it has written a status
        claim.held_by = replace(claim.held_by, token="1" * 32)  # of somebody else
        record_lost(claim, running(start=1050.0))
    first, second = read_records(tmp_path)
    assert (first["wall_s"], first["gpus"], first["gpu_s"], first["slurm_job"]) == (90.5, 8, 724.0, "12_3")
    assert (second["wall_s"], second["slurm_job"]) == (40.5, None)


def test_a_killed_attempt_at_another_output_is_recorded_too(tmp_path):
    plan(tmp_path, "write", stage_hash="new")
    write_status(tmp_path, running())
    assert run_stage(tmp_path, "train") == 0
    found = [(record["stage_hash"], record["outcome"]) for record in read_records(tmp_path)]
    assert found == [("abc", "lost"), ("new", "done")]


@pytest.mark.parametrize("torn", [b'{"schema": 1, "stage": "tr', b"\xff\xfe{", b"null\n", b"[1]\n", b"{}\n"])
def test_a_torn_line_is_passed_over_and_closed_by_the_next_writer(tmp_path, torn):
    append_record(tmp_path, line(1))
    with open(tmp_path / "attempts.jsonl", "ab") as file:
        file.write(torn)
    assert read_records(tmp_path) == [line(1)]
    append_record(tmp_path, line(2))
    append_record(tmp_path, line(3))
    assert read_records(tmp_path) == [line(1), line(2), line(3)]


@pytest.mark.parametrize(
    "facts",
    [{"stage": 3}, {"wall_s": "1"}, {"wall_s": True}, {"wall_s": -1}, {"attempt": None}, {"cpus": [1]}],
)
def test_a_line_of_other_types_is_passed_over(tmp_path, facts):
    append_record(tmp_path, line(1, **facts))
    append_record(tmp_path, line(2))
    assert read_records(tmp_path) == [line(2)]


@pytest.mark.parametrize("key", ["stage", "stage_hash", "outcome", "attempt", "wall_s", "gpus", "energy_j"])
def test_a_line_without_a_key_that_is_asked_for_is_passed_over(tmp_path, key):
    append_record(tmp_path, {name: value for name, value in line(1).items() if name != key})
    assert read_records(tmp_path) == []


def test_a_file_that_cannot_be_read_tells_of_no_attempt_and_that_is_said_once(tmp_path, capsys):
    (tmp_path / "attempts.jsonl").mkdir()
    assert read_records(tmp_path) == read_records(tmp_path) == []
    assert capsys.readouterr().err.count(f"{tmp_path / 'attempts.jsonl'} cannot be read") == 1


def test_no_folder_or_file_is_no_attempt(tmp_path):
    assert read_records(tmp_path) == read_records(tmp_path / "none") == []


def test_lines_of_many_writers_are_whole(tmp_path):
    def write():
        for n in range(20):
            append_record(tmp_path, line(n, filling="x" * 2000))
        return 0

    children = [fork(write) for _ in range(8)]
    assert [wait(child) for child in children] == [0] * 8
    assert len(read_records(tmp_path)) == 160


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_stage_is_done_though_its_record_cannot_be_kept(tmp_path, monkeypatch, capfd, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    plan(tmp_path, "write")
    monkeypatch.setattr(attempt_records.os, "write", fail)
    assert run_stage(tmp_path, "train") == 0
    assert state(tmp_path) == "done"
    said = capfd.readouterr().err
    assert "train: what this attempt has cost is not kept: " in said
    assert "cannot append to " in said
    assert str(tmp_path / "attempts.jsonl") in said


def test_a_half_written_line_is_an_error_that_says_so(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(attempt_records.os, "write", lambda handle, line: write(handle, line[:5]))
    with pytest.raises(OSError, match="the disk is full"):
        append_record(tmp_path, {"schema": 1})
    monkeypatch.undo()
    append_record(tmp_path, line(1))
    assert read_records(tmp_path) == [line(1)]


def test_who_lost_the_claim_records_nothing(tmp_path):
    plan(tmp_path, "write")

    def take_away(claim):
        (tmp_path / "claim.train").unlink()
        return still_ours(claim)

    still_ours = Claim.still_ours
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Claim, "still_ours", take_away)
        assert run_stage(tmp_path, "train") == 76
    assert read_records(tmp_path) == []


def test_a_stopped_attempt_is_recorded_as_interrupted(tmp_path):
    plan(tmp_path, "sleep")
    child = start(tmp_path)
    until(lambda: (tmp_path / "started").exists())
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=20)
    assert (child.returncode, outcomes(tmp_path)) == (85, [(1, "interrupted", 85)])


def git(folder, *arguments):
    name = ["-c", "user.name=n", "-c", "user.email=e"]
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_a_commit_and_a_digest_of_what_differs(tmp_path):
    assert read_code_version(tmp_path) is None
    own = tmp_path / "experiments" / "code_version.py"
    own.parent.mkdir()
    own.write_text("first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "none of ours")
    assert read_code_version(tmp_path) is None  # an installed copy in somebody's repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert read_code_version(tmp_path) == commit
    own.write_text("second\n")
    dirty = read_code_version(tmp_path)
    assert dirty.startswith(f"{commit}+dirty:") and len(dirty) == len(commit) + len("+dirty:") + 10
    own.write_text("third\n")
    assert read_code_version(tmp_path) not in (dirty, commit)


def test_no_git_is_no_fault_and_costs_no_time(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "git").chmod(0o755)
    for path in (tmp_path / "empty", tmp_path):
        monkeypatch.setenv("PATH", str(path))
        assert read_code_version(Path(__file__).parents[1]) is None


def test_asking_git_costs_a_stage_little(tmp_path):
    plan(tmp_path, "write")
    run_stage(tmp_path, "train")  # the first asks, the rest know
    (tmp_path / "model.json").unlink()
    begin = time.process_time()
    assert code_version() == code_version()
    assert time.process_time() - begin < 0.05
