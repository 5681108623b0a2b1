import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from toy_stage import ENVIRONMENT, n_calls, plan, state

from experiments.claim import Claim, ClaimHeldError, claim_state
from experiments.stage_command import StageCommand, write_command
from experiments.stage_process import run_stage
from experiments.stage_status import StageStatus, read_status, reset_status, write_status

TIMEOUT_S = 20.0


def test_a_stage_that_ended_well_is_done_with_the_digests_of_what_it_left(tmp_path):
    plan(tmp_path, "write")
    assert state(tmp_path) == "pending"
    assert run_stage(tmp_path, "train") == 0
    status = read_status(tmp_path, "train")
    assert (status.state, status.attempt, status.exit_code, status.error) == ("done", 1, 0, None)
    assert status.start <= status.heartbeat == status.end
    # sha256sum of "{}" and of "abc" (FIPS 180-2, B.1); a folder stands for its files
    assert status.artefacts == {
        "model.json": {
            "bytes": 2,
            "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
        "model/weights": {
            "bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        },
    }
    assert state(tmp_path, deep=True) == "done"
    assert claim_state(tmp_path, "train").kind == "free"
    assert json.loads((tmp_path / "status.train.json").read_text())["schema"] == 1


def test_a_done_stage_is_a_quick_no_op_without_torch(tmp_path):
    plan(tmp_path, "write")
    assert run_stage(tmp_path, "train") == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    check = (
        "import sys; from experiments.stage_process import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'numpy', 'toy_stage'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", check, str(tmp_path), "train"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.stdout == "0 []\n"
    assert "already done" in shown.stderr
    assert n_calls(tmp_path) == 1
    # processor time: wall time would depend on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("change", ["longer", "gone"])
def test_a_changed_artefact_makes_a_done_stage_stale_and_it_runs_again(tmp_path, change):
    plan(tmp_path, "write", max_attempts=1)
    for times in (1, 2, 3):
        assert run_stage(tmp_path, "train") == 0
        assert n_calls(tmp_path) == times
        if change == "gone":
            (tmp_path / "model" / "weights").unlink()
        else:
            (tmp_path / "model" / "weights").write_text("other weights")
        assert state(tmp_path) == "stale"


def test_a_change_that_keeps_the_size_is_seen_by_the_deep_check(tmp_path):
    plan(tmp_path, "write")
    assert run_stage(tmp_path, "train") == 0
    (tmp_path / "model" / "weights").write_text("ABC")
    assert state(tmp_path) == "done"
    assert state(tmp_path, deep=True) == "stale"


def test_another_hash_makes_a_done_stage_stale_and_counts_attempts_anew(tmp_path):
    plan(tmp_path, "give", "65")
    assert run_stage(tmp_path, "train") == 65
    plan(tmp_path, "write", stage_hash="def")
    assert state(tmp_path, "def") == "stale"
    assert run_stage(tmp_path, "train") == 0
    assert read_status(tmp_path, "train").attempt == 1
    assert state(tmp_path, "def") == "done"


def test_a_held_stage_is_left_alone_with_75(tmp_path, capfd):
    plan(tmp_path, "write")
    with Claim(tmp_path, "train"):
        assert state(tmp_path) == "running"
        assert run_stage(tmp_path, "train") == 75
    assert f"train: held by pid {os.getpid()} on " in capfd.readouterr().err
    assert not (tmp_path / "calls.txt").exists()
    assert read_status(tmp_path, "train") is None


def test_a_stage_that_its_holder_finished_meanwhile_is_not_run_again(tmp_path, monkeypatch):
    plan(tmp_path, "write")
    acquire = Claim.acquire

    def finish_first(claim):
        monkeypatch.setattr(Claim, "acquire", acquire)
        assert run_stage(tmp_path, "train") == 0
        return acquire(claim)

    monkeypatch.setattr(Claim, "acquire", finish_first)
    assert run_stage(tmp_path, "train") == 0
    assert n_calls(tmp_path) == 1


def test_an_exception_leaves_its_class_and_the_last_twenty_lines_and_is_tried_again(tmp_path):
    plan(tmp_path, "fail", max_attempts=2)
    assert run_stage(tmp_path, "train") == 1
    status = read_status(tmp_path, "train")
    assert (status.state, status.attempt, status.exit_code) == ("pending", 1, 1)
    assert status.error["class"] == "KeyError"
    assert len(status.error["traceback_tail"]) == 20
    assert status.error["traceback_tail"][-1] == "KeyError: 'no such column'"
    assert state(tmp_path) == "pending"
    assert claim_state(tmp_path, "train").kind == "free"


def test_a_library_that_can_write_no_more_gets_a_remedy_beside_its_own_words(tmp_path, capfd):
    plan(tmp_path, "save_too_much")
    assert run_stage(tmp_path, "train") == 1
    last = f"{tmp_path}: the file would exceed the size limit of this process (ulimit -f)"
    status = read_status(tmp_path, "train")
    assert "SafetensorError" in status.error["class"]
    assert status.error["traceback_tail"][-1] == last and last in capfd.readouterr().err


def test_after_the_last_attempt_a_stage_stays_failed_until_it_is_reset(tmp_path, capfd):
    plan(tmp_path, "fail", max_attempts=2)
    assert [run_stage(tmp_path, "train") for _ in range(4)] == [1, 1, 1, 1]
    assert (state(tmp_path), n_calls(tmp_path)) == ("failed", 2)
    assert "failed in attempt 2; to be retried by hand" in capfd.readouterr().err
    reset_status(tmp_path, "train")
    assert state(tmp_path) == "pending"
    plan(tmp_path, "write")
    assert run_stage(tmp_path, "train") == 0


def test_fewer_attempts_than_were_made_are_no_reason_to_forget_the_error(tmp_path):
    plan(tmp_path, "fail", max_attempts=3)
    assert [run_stage(tmp_path, "train") for _ in range(2)] == [1, 1]
    plan(tmp_path, "fail", max_attempts=1)
    assert run_stage(tmp_path, "train") == 1
    status = read_status(tmp_path, "train")
    assert (status.state, status.error["class"], n_calls(tmp_path)) == ("failed", "KeyError", 2)


def test_bad_input_is_not_tried_again(tmp_path):
    plan(tmp_path, "give", "65")
    assert [run_stage(tmp_path, "train") for _ in range(2)] == [65, 65]
    assert (state(tmp_path), n_calls(tmp_path)) == ("failed", 1)


def test_a_missing_parent_uses_up_no_attempt(tmp_path):
    plan(tmp_path, "give", "69", max_attempts=1)
    assert [run_stage(tmp_path, "train") for _ in range(3)] == [69, 69, 69]
    assert (state(tmp_path), read_status(tmp_path, "train").attempt, n_calls(tmp_path)) == ("pending", 0, 3)


@pytest.mark.parametrize(
    ("what", "code", "kind"),
    [
        (("give", "3"), 3, "exit code 3"),
        (("leave", "2"), 2, "exit code 2"),
        (("give", "75"), 1, "exit code 75"),
        (("nothing",), 1, "TypeError"),
        (("leave", "0"), 1, "FileNotFoundError"),  # said to be well, but nothing is there
    ],
)
def test_every_other_end_is_a_failed_attempt(tmp_path, what, code, kind):
    plan(tmp_path, *what, max_attempts=1)
    assert run_stage(tmp_path, "train") == code
    status = read_status(tmp_path, "train")
    assert (status.state, status.exit_code, status.error["class"]) == ("failed", code, kind)


PROGRESS = {
    "train": "attempts/1/checkpoint-5/complete.json",
    "generate": "generate/numbers/generations.jsonl",
    "pairs": "candidates/generations.jsonl",
}


def lose(folder, stage, leaves=None):
    """What an attempt that was killed leaves, with a file that is younger than its beginning."""
    start = time.time() - 100
    if leaves is not None:
        path = folder / PROGRESS[stage]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(leaves)
    owner = {"host": "n1", "pid": 1, "boot_id": "b", "token": "0" * 32}
    facts = {"stage": stage, "state": "running", "stage_hash": "abc", "start": start, "heartbeat": start}
    earlier = read_status(folder, stage)
    write_status(folder, StageStatus(**owner, **facts, attempt=earlier.attempt if earlier else 1))


def command(folder, stage):
    about = {"module": "toy_stage", "stage_hash": "abc", "artefacts": (), "max_attempts": 2}
    write_command(folder, stage, StageCommand(argv=(str(folder), "give", "85"), **about))


@pytest.mark.parametrize("stage", PROGRESS)
def test_an_attempt_that_was_killed_after_it_got_on_does_not_count(tmp_path, stage):
    command(tmp_path, stage)
    for _ in range(3):
        lose(tmp_path, stage, leaves="{}")
        assert run_stage(tmp_path, stage) == 85
    assert read_status(tmp_path, stage).attempt == 1


@pytest.mark.parametrize(("stage", "leaves"), [(stage, "") for stage in PROGRESS] + [("train", None)])
def test_an_attempt_that_was_killed_before_it_got_on_counts(tmp_path, stage, leaves):
    command(tmp_path, stage)
    lose(tmp_path, stage, leaves)
    assert run_stage(tmp_path, stage) == 85
    assert read_status(tmp_path, stage).attempt == 2
    lose(tmp_path, stage, leaves)
    assert run_stage(tmp_path, stage) == 1
    assert read_status(tmp_path, stage).state == "failed"


def test_what_an_earlier_attempt_has_left_is_no_progress_of_this_one(tmp_path):
    command(tmp_path, "train")
    lose(tmp_path, "train", leaves="{}")
    os.utime(tmp_path / PROGRESS["train"], (time.time() - 200,) * 2)
    assert run_stage(tmp_path, "train") == 85
    assert read_status(tmp_path, "train").attempt == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"artefacts": None},
        {"artefacts": []},
        {"artefacts": {"model.json": {"bytes": "2", "sha256": "a"}}},
        {"start": "x"},
        {"start": None},
        {"attempt": 1.5},
        {"heartbeat": True},
        {"error": "KeyError"},
        {"error": {"class": "KeyError", "traceback_tail": [3]}},
    ],
)
def test_a_status_of_other_types_is_damaged_and_the_message_names_it(tmp_path, facts):
    plan(tmp_path, "write")
    assert run_stage(tmp_path, "train") == 0
    path = tmp_path / "status.train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    (name,) = facts
    for look in (lambda: read_status(tmp_path, "train"), lambda: state(tmp_path)):
        with pytest.raises(ValueError, match=rf"status\.train\.json: not a status \({name} = "):
            look()


def test_a_cancelled_stage_is_not_started(tmp_path):
    plan(tmp_path, "fail")
    run_stage(tmp_path, "train")
    write_status(tmp_path, replace(read_status(tmp_path, "train"), state="cancelled"))
    assert run_stage(tmp_path, "train") == 1
    assert (state(tmp_path), n_calls(tmp_path)) == ("cancelled", 1)


def test_a_running_stage_is_not_reset(tmp_path):
    with Claim(tmp_path, "train"), pytest.raises(ClaimHeldError):
        reset_status(tmp_path, "train")
