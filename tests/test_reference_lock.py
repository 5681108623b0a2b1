"""One at a time fills a reference folder; who waits says for whom."""

import fcntl
import re
import socket
import time
from types import SimpleNamespace

import pytest
from processes import fork, until, wait

from po.references import lock
from po.references.lock import sole_writer


def test_a_lock_ends_with_the_work_even_if_that_fails(tmp_path):
    with pytest.raises(KeyError), sole_writer(tmp_path):
        raise KeyError
    with sole_writer(tmp_path):
        assert wait(fork(lambda: holds(tmp_path))) == 1
    assert wait(fork(lambda: holds(tmp_path))) == 0


def holds(folder):
    """Exit code 0 if the lock is free, 1 if it is not."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
    return 0


def test_who_waits_says_every_ten_minutes_for_whom_and_for_how_long(tmp_path, monkeypatch, capfd):
    held, free, naps = tmp_path / "held", tmp_path / "free", []

    def hold():
        with sole_writer(tmp_path):
            held.touch()
            until(free.exists)
        return 0

    child = fork(hold)
    until(held.exists)

    def nap(_):
        naps.append(150.0)  # seconds
        if len(naps) == 9:
            free.touch()
            assert wait(child) == 0

    clock = SimpleNamespace(sleep=nap, monotonic=lambda: sum(naps), strftime=time.strftime)
    monkeypatch.setattr(lock, "time", clock)
    with sole_writer(tmp_path):
        pass
    lines = capfd.readouterr().err.splitlines()
    waits = ["waiting for it", "waiting for it (10 min so far)", "waiting for it (20 min so far)"]
    assert [line.partition("; ")[2] for line in lines] == waits
    owner = re.escape(f"{tmp_path}: pid {child} on {socket.gethostname()}")
    assert all(re.match(rf"{owner} since \d{{4}}-\d\d-\d\d \d\d:\d\d computes", line) for line in lines)
