import json
import os
import time

import pytest
from processes import fork, until, wait

import experiments.claim
from experiments.claim import Claim, ClaimHeldError, claim_state
from experiments.owner import is_alive, this_process


def claim_of_a_dead_process(folder, stage="train"):
    assert wait(fork(lambda: 0 if Claim(folder, stage).acquire() else 1)) == 0
    return claim_state(folder, stage).owner


def rewrite_owner(folder, **changes):
    """Gives the claim of a dead process other facts."""
    path = folder / "claim.train"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_claim_goes_from_free_to_held_to_free(tmp_path):
    assert claim_state(tmp_path, "train").kind == "free"
    with Claim(tmp_path, "train") as claim:
        assert claim_state(tmp_path, "train").owner == claim.owner
        assert claim_state(tmp_path, "train").kind == "held"
        assert claim_state(tmp_path, "score").kind == "free"
        with pytest.raises(ClaimHeldError, match=f"claim.train is held by pid {os.getpid()} on "):
            Claim(tmp_path, "train").__enter__()
    assert claim_state(tmp_path, "train").kind == "free"
    assert names(tmp_path) == []


def test_a_claim_can_be_taken_again_and_then_beats_again(tmp_path):
    claim, beats = Claim(tmp_path, "train", heartbeat_s=0.01), []
    claim.on_beat = lambda: beats.append(1)
    assert claim.acquire()
    claim.release()
    beats.clear()
    assert claim.acquire()
    until(lambda: beats)
    claim.release()


def test_the_claim_of_a_dead_process_is_stale_and_taken_over(tmp_path):
    dead = claim_of_a_dead_process(tmp_path)
    assert claim_state(tmp_path, "train").kind == "stale"
    with Claim(tmp_path, "train") as claim:
        assert claim_state(tmp_path, "train").owner == claim.owner != dead


def test_a_process_that_ended_but_was_not_asked_for_is_dead(tmp_path):
    pid = fork(lambda: 0 if Claim(tmp_path, "train").acquire() else 1)
    until(lambda: claim_state(tmp_path, "train").kind == "stale")
    assert os.path.exists(f"/proc/{pid}")
    assert wait(pid) == 0


def test_a_reused_pid_is_not_taken_for_the_owner(tmp_path):
    dead = claim_of_a_dead_process(tmp_path)
    rewrite_owner(tmp_path, pid=os.getpid(), pid_start=dead.pid_start)
    assert claim_state(tmp_path, "train").kind == "stale"
    rewrite_owner(tmp_path, pid_start=this_process(60.0).pid_start)
    assert claim_state(tmp_path, "train").kind == "held"


@pytest.mark.parametrize("elsewhere", [{"host": "n2", "boot_id": "other"}, {"pid_namespace": "pid:[1]"}])
def test_an_owner_that_cannot_be_seen_from_here_keeps_its_claim_however_old(tmp_path, elsewhere):
    claim_of_a_dead_process(tmp_path)
    rewrite_owner(tmp_path, **elsewhere)
    assert is_alive(claim_state(tmp_path, "train").owner) is None
    age(tmp_path / "claim.train", 1e7)
    assert claim_state(tmp_path, "train").kind == "held"
    assert not Claim(tmp_path, "train").acquire()


def test_stealing_needs_ten_silent_heartbeats(tmp_path):
    claim_of_a_dead_process(tmp_path)
    rewrite_owner(tmp_path, host="n2", boot_id="other", heartbeat_s=60.0)
    age(tmp_path / "claim.train", 500)
    assert not Claim(tmp_path, "train", steal=True).acquire()
    age(tmp_path / "claim.train", 700)
    with Claim(tmp_path, "train", steal=True) as claim:
        assert claim.still_ours()


def test_after_a_reboot_of_this_machine_a_silent_claim_is_stale(tmp_path):
    claim_of_a_dead_process(tmp_path)
    rewrite_owner(tmp_path, boot_id="an earlier boot", heartbeat_s=60.0)
    assert claim_state(tmp_path, "train").kind == "held"
    age(tmp_path / "claim.train", 700)
    assert claim_state(tmp_path, "train").kind == "stale"


def test_the_age_of_a_claim_is_told_by_the_file_server_and_not_by_the_host(tmp_path, monkeypatch):
    claim_of_a_dead_process(tmp_path)
    rewrite_owner(tmp_path, boot_id="an earlier boot", heartbeat_s=60.0)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 1e6)
    assert claim_state(tmp_path, "train").kind == "held"
    monkeypatch.setattr(time, "time", lambda: clock() - 1e6)
    os.utime(tmp_path / "claim.train", (clock() - 700,) * 2)
    assert claim_state(tmp_path, "train").kind == "stale"


@pytest.mark.parametrize("content", [b"", b'{"token": "ab', b'{"token": "../../x"}', b"\xff"])
def test_a_half_written_claim_is_held_while_young_and_taken_over_later(tmp_path, content):
    path = tmp_path / "claim.train"
    path.write_bytes(content)
    assert claim_state(tmp_path, "train").kind == "held"
    with pytest.raises(ClaimHeldError, match="held by an unreadable owner"):
        Claim(tmp_path, "train").__enter__()
    assert path.read_bytes() == content
    age(path, 60)
    assert claim_state(tmp_path, "train").kind == "stale"
    with Claim(tmp_path, "train") as claim:
        assert claim.still_ours()
    assert names(tmp_path) == []


def test_a_slow_contender_does_not_hit_the_claim_of_a_quicker_one(tmp_path, monkeypatch):
    claim_of_a_dead_process(tmp_path)
    judge, quick, slow = experiments.claim.is_stale, Claim(tmp_path, "train"), Claim(tmp_path, "train")

    def judge_then_be_overtaken(found, folder, *, steal=False):
        stale = judge(found, folder, steal=steal)
        monkeypatch.setattr(experiments.claim, "is_stale", judge)
        assert quick.acquire()
        return stale

    monkeypatch.setattr(experiments.claim, "is_stale", judge_then_be_overtaken)
    assert not slow.acquire()
    assert quick.still_ours()
    quick.release()
    assert names(tmp_path) == []


def test_a_contender_that_died_while_taking_over_is_succeeded(tmp_path):
    dead = claim_of_a_dead_process(tmp_path)

    def die_with_the_right_to_remove():
        claim = Claim(tmp_path, "train")
        claim._facts.write_text(claim.owner.to_json())
        os.link(claim._facts, tmp_path / f"claim.train.{dead.token}.successor.1")
        return 0

    assert wait(fork(die_with_the_right_to_remove)) == 0
    with Claim(tmp_path, "train") as claim:
        assert claim.still_ours()
        assert names(tmp_path) == ["claim.train", f"claim.train.{claim.owner.token}"]
    assert names(tmp_path) == []


def test_a_dead_owner_is_not_removed_while_a_live_contender_has_the_right_to(tmp_path):
    dead = claim_of_a_dead_process(tmp_path)
    right = tmp_path / f"claim.train.{dead.token}.successor.1"
    right.write_text(this_process(60.0).to_json())
    assert not Claim(tmp_path, "train").acquire()
    assert claim_state(tmp_path, "train").owner == dead
    right.unlink()
    with Claim(tmp_path, "train") as claim:
        assert claim.still_ours()
