"""A ``squeue`` that answers what a test wants and counts its calls."""

import os

import pytest

import experiments.slurm_queue


class FakeQueue:
    """What ``squeue`` would say; ``says`` makes it say it, ``calls`` are the arguments it was called with."""

    def __init__(self, folder, monkeypatch):
        self.bin, self.log, self._patch = folder / "bin", folder / "calls.txt", monkeypatch
        self.bin.mkdir()
        monkeypatch.setenv("PATH", f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        self.says("")

    def runs(self, script):
        program = self.bin / "squeue"
        program.write_text(f'#!/bin/sh\necho "$*" >> "{self.log}"\n{script}\n')
        program.chmod(0o755)
        self.forget()

    def says(self, text, code=0, complaint=""):
        (self.bin / "answer").write_text(text)
        (self.bin / "complaint").write_text(complaint)
        self.runs(f'cat "{self.bin}/answer"; cat "{self.bin}/complaint" >&2; exit {code}')

    def forget(self):
        """As time does: what was asked before is asked again."""
        self._patch.setattr(experiments.slurm_queue, "_memory", experiments.slurm_queue._Memory())

    @property
    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def queue(tmp_path_factory, monkeypatch):
    return FakeQueue(tmp_path_factory.mktemp("squeue"), monkeypatch)
