"""experiments.status --watch: until all is done, or Ctrl-C."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import time

import pytest
from processes import TIMEOUT_S, fork, until, wait
from stage_states import Studied

from experiments import slurm_queue, status


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Every test asks its own squeue."""
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())


@pytest.fixture
def study(tmp_path):
    return Studied(tmp_path)


def shown(study, capsys, *options, code):
    assert status.main([str(study.root), *options]) == code
    return capsys.readouterr().out


def watcher(study, output):
    def watch():
        os.dup2(output, 1)
        sys.stdout = os.fdopen(1, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return status.main([str(study.root), "--watch", "0.05"])

    return fork(watch)


def test_a_watch_ends_when_all_is_done(study, tmp_path):
    study.finish("score dpo.s1")
    with open(tmp_path / "shown", "w") as file:
        child = watcher(study, file.fileno())
    until(lambda: (tmp_path / "shown").read_text().count("17 of 18") >= 2)
    study.put("score dpo.s1", "done")
    assert wait(child) == 0
    assert "100 %  18 of 18" in (tmp_path / "shown").read_text()


def test_ctrl_c_ends_a_watch(study, tmp_path):
    with open(tmp_path / "shown", "w") as file:
        child = watcher(study, file.fileno())
    until(lambda: "0 of 18" in (tmp_path / "shown").read_text())
    os.kill(child, signal.SIGINT)
    assert wait(child) == 130


def test_on_a_terminal_a_watch_draws_in_place_and_within_the_screen(study):
    study.finish("score dpo.s1")
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 40, 0, 0))
    child = watcher(study, slave)
    seen = bytearray()
    end = time.monotonic() + TIMEOUT_S
    while seen.count(b"\033[H") < 3 and time.monotonic() < end:
        try:
            seen += os.read(master, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert wait(child) == 130
    screen = seen.split(b"\033[H")[1].decode()
    lines = screen.replace("\033[K", "").replace("\033[J", "").replace("\r", "").splitlines()
    assert len(lines) <= 7 and all(len(line) < 40 for line in lines)
    assert "more lines" in lines[-1]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "runs/other"])
def test_a_watch_wants_seconds(study, capsys, seconds):
    with pytest.raises(SystemExit) as ended:
        status.main([str(study.root), f"--watch={seconds}"])
    assert ended.value.code == 2
    assert "no number of seconds" in capsys.readouterr().err
