"""A stage's process that cannot be started leaves the runner as it was: its signals, its open files."""

import errno
import os
import signal
from multiprocessing import forkserver
from pathlib import Path

import pytest

from experiments import forking


def _refused(*_: object) -> None:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def _listens_to() -> tuple[object, bool]:
    return signal.getsignal(signal.SIGINT), signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_server_that_cannot_be_started_leaves_the_signals_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def refused() -> None:
        seen.append(_listens_to())
        _refused()

    monkeypatch.setattr(forkserver, "ensure_running", refused)
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of xdist ignores it
    try:
        with pytest.raises(BlockingIOError):
            forking._ensure_server()
        assert seen == [(signal.SIG_IGN, True)]
        assert _listens_to() == (signal.default_int_handler, False)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGINT, kept)


@pytest.mark.parametrize("n_stages", [1, 2])
def test_a_process_that_cannot_be_started_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_stages: int
) -> None:
    monkeypatch.setattr(forking, "_ensure_server", lambda: None)
    monkeypatch.setattr(forking.ForkServerProcess, "start", _refused)
    opened = len(os.listdir("/proc/self/fd"))
    caught = []  # with the frames, which would keep the pipe from being closed by chance
    for _ in range(3):
        with pytest.raises(BlockingIOError) as raised:
            forking.fork_stages([(tmp_path, "train")] * n_stages, cpus=1, gpus=None, name="it")
        caught.append(raised.value)
    assert len(os.listdir("/proc/self/fd")) == opened


KILLED = """
import os, pathlib, signal

starts = pathlib.Path({path!r})
starts.write_text(starts.read_text() + "x")
if len(starts.read_text()) <= {times}:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("times", [1, 3])
def test_a_server_that_is_killed_while_it_imports_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times: int
) -> None:
    starts = tmp_path / "starts.txt"
    starts.write_text("")
    (tmp_path / "killed_at_first.py").write_text(KILLED.format(path=str(starts), times=times))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(forking, "_PRELOAD", ["killed_at_first"])
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    try:
        if times == 1:
            process, _ = forking.fork_stages([(tmp_path, "train")], cpus=1, gpus=None, name="it")
            process.join(60)
            assert process.exitcode not in (None, forking.SERVER_DIED)
        else:
            with pytest.raises(OSError, match="ended 3 times while it did so"):
                forking.fork_stages([(tmp_path, "train")], cpus=1, gpus=None, name="it")
        assert starts.read_text() == "x" * (times + (times == 1))
    finally:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
