"""A machine on which SLURM's programs are scripts that write down how they were called, and a study."""

import json
import os

from manifests import changed, write

import experiments.slurm_queue
import slurm.driver
import slurm.site
from slurm.submit import main

SBATCH = """
n=$(/bin/cat "$0.count" 2>/dev/null || echo 0); n=$((n + 1)); echo "$n" > "$0.count"
printf '%s\\0' "$@" > "$0.call.$n"; /usr/bin/env > "$0.environment.$n"
[ "$n" = "$(/bin/cat "$0.fails_at" 2>/dev/null)" ] && { echo "sbatch: error: Invalid account" >&2; exit 1; }
echo "$((100 + n));local"
"""
SCANCEL = 'echo "$*" >> "$0.calls"'
SQUEUE = """
case "$*" in *--me*) /bin/cat "$0.comments" 2>/dev/null ;; *) /bin/cat "$0.elements" 2>/dev/null ;; esac
exit 0
"""
# All that sbatch was called with is in the queue.
ALL_COMMENTS = r"""for call in "${0%/*}"/sbatch.call.*; do
    comment=$(/usr/bin/tr '\0' '\n' < "$call" | /bin/sed -n 's/^--comment=//p')
    echo "$((100 + ${call##*.}))|PENDING|$comment"
done"""
CONFIG = "echo 'MaxArraySize            = 1001'"
ARRAYS = ["prepare-1", "train-1", "generate-1", "train-2", "train-3"]


class Site:
    """A machine with fake programs of SLURM, and a study."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.bin, self._patch = folder, folder / "bin", monkeypatch
        self.bin.mkdir()
        self.manifest = write(folder, changed())
        self.runs = folder / "runs"
        self.root = self.runs / "small"
        for name, text in {
            "sbatch": SBATCH,
            "scancel": SCANCEL,
            "squeue": SQUEUE,
            "scontrol": CONFIG,
        }.items():
            self.program(name, text)
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.delenv("GRID_SITE", raising=False)
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH", "SRUN"))]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(slurm.site, "ROOT", folder)  # whose slurm/site.yaml is the user's
        monkeypatch.setattr(slurm.driver, "_WAIT_FOR_DRIVER_S", 0.2)

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def submit(self, *options):
        self._patch.setattr(experiments.slurm_queue, "_memory", experiments.slurm_queue._Memory())
        return main([str(self.manifest), "--runs", str(self.runs), *options])

    def fails_at(self, number):
        (self.bin / "sbatch.fails_at").write_text(str(number))

    def queue(self, elements="", comments=""):
        (self.bin / "squeue.elements").write_text(elements)
        (self.bin / "squeue.comments").write_text(comments)

    @property
    def calls(self):
        """Arguments of each call of sbatch."""
        paths = sorted(self.bin.glob("sbatch.call.*"), key=lambda path: int(path.suffix[1:]))
        return [path.read_text().split("\0")[:-1] for path in paths]

    @property
    def queued(self):
        return [call[-1] for call in self.calls]

    @property
    def cancelled(self):
        path = self.bin / "scancel.calls"
        return path.read_text().split() if path.exists() else []

    def forget_calls(self):
        for path in self.bin.glob("sbatch.call.*"):
            path.unlink()

    @property
    def submissions(self):
        found = (self.root / "submissions").iterdir()  # their names tell no more than seconds
        return sorted(found, key=lambda path: (path / "manifest.yaml").stat().st_mtime_ns)

    def jobs(self, number=-1):
        return json.loads((self.submissions[number] / "jobs.json").read_text())

    def ids(self):
        return {job["array"]: job["job"] for job in self.jobs()["jobs"]}

    def alive(self, *left_out):
        """What squeue says when nothing of the newest submission has started, but for some elements."""
        rows = [
            f"{job['job']}_{index}|PENDING|Dependency"
            if job["kind"] != "report"
            else f"{job['job']}|PENDING|D"
            for job in self.jobs()["jobs"]
            for index in range(job["size"])
            if f"{job['array']}_{index}" not in left_out
        ]
        return "".join(f"{row}\n" for row in rows)


def option(call, name):
    """The value of an option, which is there once at most."""
    found = [word.partition("=")[2] for word in call if word.startswith(f"--{name}=")]
    assert len(found) <= 1
    return found[0] if found else None


def tree(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")
    }
