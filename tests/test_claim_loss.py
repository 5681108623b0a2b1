import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from processes import TIMEOUT_S, fork, until, wait

from experiments.claim import Claim, claim_state


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_heartbeat_touches_the_claim(tmp_path):
    with Claim(tmp_path, "train", heartbeat_s=0.01):
        age(tmp_path / "claim.train", 1000)
        old = (tmp_path / "claim.train").stat().st_mtime
        until(lambda: (tmp_path / "claim.train").stat().st_mtime > old + 900)


def robbed(folder, victim):
    """Lets another host take the claim over from ``victim``, which lives and cannot be seen."""
    (folder / "claim.train").unlink()
    facts = json.loads(victim.owner.to_json()) | {"token": "f" * 32, "boot_id": "other", "host": "n2"}
    (folder / "claim.train").write_text(json.dumps(facts))


def test_a_lost_claim_is_noticed_and_its_release_does_nothing(tmp_path):
    lost = []
    victim = Claim(tmp_path, "train", heartbeat_s=0.01, on_lost=lost.append)
    assert victim.acquire()
    robbed(tmp_path, victim)
    until(lambda: lost == [victim])
    assert not victim.still_ours()
    victim.release()
    assert claim_state(tmp_path, "train").owner.token == "f" * 32
    assert names(tmp_path) == ["claim.train"]


def test_a_process_that_lost_its_claim_exits_with_76(tmp_path):
    def hold():
        Claim(tmp_path, "train", heartbeat_s=0.01).acquire()
        time.sleep(TIMEOUT_S)
        return 0

    pid = fork(hold)
    until(lambda: claim_state(tmp_path, "train").kind == "held")
    (tmp_path / "claim.train").unlink()
    assert wait(pid, 10) == 76


def test_release_without_a_claim_does_nothing_to_the_holder(tmp_path):
    with Claim(tmp_path, "train") as holder:
        loser = Claim(tmp_path, "train")
        assert not loser.acquire()
        loser.release()
        assert holder.still_ours()


def test_a_heartbeat_that_fails_for_a_moment_does_not_lose_the_claim(tmp_path, monkeypatch, capsys):
    failures = []

    def server_is_away(path):
        failures.append(path)
        raise OSError(errno.EIO, "Input/output error")

    with Claim(tmp_path, "train", heartbeat_s=0.01) as claim:
        monkeypatch.setattr(os, "utime", server_is_away)
        until(lambda: len(failures) >= 2)
        assert claim.still_ours()
    assert "claim.train: no heartbeat ([Errno 5] Input/output error); trying again" in capsys.readouterr().err


# -- the disk -------------------------------------------------------------------------------------


def test_a_folder_that_is_gone_is_a_clear_error(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"'train' in {tmp_path}/gone: .*deleted or moved while in use"
    ):
        Claim(tmp_path / "gone", "train").acquire()


def test_a_folder_deleted_underneath_its_owner_loses_the_claim(tmp_path):
    folder, lost = tmp_path / "cell", []
    folder.mkdir()
    claim = Claim(folder, "train", heartbeat_s=0.01, on_lost=lost.append)
    assert claim.acquire()
    shutil.rmtree(folder)
    until(lambda: lost == [claim])
    claim.release()
    assert not folder.exists()


def test_a_read_only_folder_is_a_clear_error(tmp_path):
    def claim_without_rights():
        os.chdir(tmp_path)
        if os.geteuid() == 0:  # root may write anywhere
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        try:
            Claim(Path(), "train").acquire()
        except PermissionError as error:
            return 0 if "no permission to write there" in str(error) else 2
        return 1

    tmp_path.chmod(0o555)
    try:
        assert wait(fork(claim_without_rights)) == 0
    finally:
        tmp_path.chmod(0o755)
    assert names(tmp_path) == []


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_written_claim(tmp_path, monkeypatch):
    def disk_is_full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OSError, match="'train' in .*: the disk is full; free some space"):
        Claim(tmp_path, "train").acquire()
    assert names(tmp_path) == []


@pytest.mark.parametrize("stage", ["", "a/b", "../x", "train.1", "*"])
def test_a_stage_name_that_is_no_file_name_is_refused(tmp_path, stage):
    with pytest.raises(ValueError, match="as in 'train'"):
        claim_state(tmp_path, stage)
