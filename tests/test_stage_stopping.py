import json
import os
import signal
import subprocess
import sys

import pytest
from processes import until
from toy_stage import ENVIRONMENT, n_calls, plan, start, state

from experiments.claim import Claim, claim_state
from experiments.stage_process import run_stage
from experiments.stage_status import read_status

TIMEOUT_S = 20.0


def test_a_killed_process_leaves_a_lost_stage_that_counts_as_an_attempt(tmp_path):
    plan(tmp_path, "sleep", max_attempts=2)
    for attempt in (1, 2):
        process = start(tmp_path)
        until((tmp_path / "started").exists)
        assert (state(tmp_path), read_status(tmp_path, "train").attempt) == ("running", attempt)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        (tmp_path / "started").unlink()
        assert state(tmp_path) == "lost"
    assert run_stage(tmp_path, "train") == 1
    status = read_status(tmp_path, "train")
    assert (status.state, status.attempt, status.error["class"]) == ("failed", 2, "Killed")
    assert n_calls(tmp_path) == 2


def test_a_process_whose_claim_is_taken_exits_with_76_and_leaves_the_status_to_the_taker(tmp_path):
    plan(tmp_path, "sleep")
    code = "from experiments.stage_process import *; run_stage(Path(sys.argv[1]), 'train', heartbeat_s=0.02)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    until((tmp_path / "started").exists)
    beat = read_status(tmp_path, "train").heartbeat
    until(lambda: read_status(tmp_path, "train").heartbeat > beat)
    facts = json.loads((tmp_path / "claim.train").read_text()) | {"token": "f" * 32}
    (tmp_path / "new").write_text(json.dumps(facts))
    os.replace(tmp_path / "new", tmp_path / "claim.train")
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 76
    assert "taken over by another process" in err
    assert read_status(tmp_path, "train").state == "running"
    assert claim_state(tmp_path, "train").owner.token == "f" * 32


def test_nothing_is_published_when_the_claim_is_lost_at_the_very_end(tmp_path, monkeypatch):
    plan(tmp_path, "write")
    monkeypatch.setattr(Claim, "still_ours", lambda _: False)
    assert run_stage(tmp_path, "train") == 76
    assert read_status(tmp_path, "train").state == "running"


@pytest.mark.parametrize(
    ("what", "number"),
    [("sleep", signal.SIGTERM), ("sleep", signal.SIGINT), ("sleep_to_boundary", signal.SIGTERM)],
)
def test_a_stopped_stage_is_interrupted_and_keeps_its_attempt(tmp_path, what, number):
    plan(tmp_path, what, max_attempts=1)
    for _ in range(2):
        process = start(tmp_path)
        until((tmp_path / "started").exists)
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 85
        (tmp_path / "started").unlink()
        status = read_status(tmp_path, "train")
        assert (state(tmp_path), status.attempt, status.exit_code) == ("interrupted", 1, 85)
        assert claim_state(tmp_path, "train").kind == "free"
    assert (tmp_path / "checkpoint").exists() == (what == "sleep_to_boundary")


def test_a_stage_ends_when_the_process_that_started_it_is_killed(tmp_path):
    plan(tmp_path, "sleep")
    runner = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-m', 'experiments.stage_process', "
        "sys.argv[1], 'train', '--die-with-parent', str(os.getpid())])"
    )
    parent = subprocess.Popen([sys.executable, "-c", runner, str(tmp_path)], env=ENVIRONMENT)
    until((tmp_path / "started").exists)
    assert state(tmp_path) == "running"
    parent.kill()
    parent.wait(TIMEOUT_S)
    until(lambda: state(tmp_path) == "lost")


def test_a_stage_whose_parent_is_gone_already_is_not_started(tmp_path):
    plan(tmp_path, "write")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(TIMEOUT_S)
    process = start(tmp_path, "--die-with-parent", str(gone.pid))
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f"pid {gone.pid}, which started this stage, is gone" in err
    assert not (tmp_path / "calls.txt").exists()


def test_the_log_is_appended_to_with_a_header_for_every_attempt(tmp_path):
    plan(tmp_path, "give", "3")
    assert start(tmp_path, "--log").wait(TIMEOUT_S) == 3
    plan(tmp_path, "sleep_in_child")
    assert start(tmp_path, "--log").wait(TIMEOUT_S) == 0
    lines = (tmp_path / "logs" / "train.log").read_text().splitlines()
    assert lines[0].startswith("===== train: attempt 1 of 3, 20")
    assert lines[1] == "what is wrong"
    assert lines[2].startswith("===== train: attempt 2 of 3, 20")
    assert lines[3:] == ["from the child", "from the stage"]


def test_what_a_stage_said_before_a_bad_exit_code_stands_in_its_status(tmp_path):
    plan(tmp_path, "give", "65")
    assert start(tmp_path, "--log").wait(TIMEOUT_S) == 65
    assert read_status(tmp_path, "train").error == {
        "class": "exit code 65",
        "traceback_tail": ["what is wrong"],
    }


def test_the_caller_gets_its_output_back_after_a_logged_stage(tmp_path, capfd):
    plan(tmp_path, "sleep_in_child")
    assert run_stage(tmp_path, "train", log=True) == 0
    os.write(1, b"after\n")
    assert capfd.readouterr().out.endswith("after\n")
    assert "from the child" in (tmp_path / "logs" / "train.log").read_text()
    assert "after" not in (tmp_path / "logs" / "train.log").read_text()
