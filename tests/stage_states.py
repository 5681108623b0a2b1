"""A planned study whose stages are put into states by hand, and a SLURM that is two shell scripts."""

import json
import os
import time
from pathlib import Path

from manifests import loaded

from experiments.recorded_plan import RecordedPlan, read_plan
from experiments.stage_command import StageCommand, write_command
from experiments.stage_status import StageStatus, write_status

ERROR = {
    "class": "KeyError",
    "traceback_tail": ["Traceback ...", "KeyError: 'no such column'"],
}


class Studied:
    """``runs/small`` with its plan: prepare, pairs, reference, two seeds of sft and dpo."""

    def __init__(self, folder: Path, **changes):
        found = loaded(folder, **changes)
        found.write_plan()
        self.folder, self.root = folder, found.root

    @property
    def plan(self) -> RecordedPlan:
        return read_plan(self.root)

    def job(self, label):
        """The entry of a job by the end of its label, such as ``train tiny.numbers.dpo.s1``."""
        found = [job for job in self.plan.jobs if job["label"].replace("tiny.numbers.", "") == label]
        assert len(found) == 1, [job["label"] for job in self.plan.jobs]
        return found[0]

    def place(self, label):
        return self.root / self.job(label)["folder"]

    def put(self, label, state, *, stage_hash=None, max_attempts=3, **facts):
        """Writes a stage's status, and its command, as its process would."""
        job, now = self.job(label), time.time()
        folder = self.root / job["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        command = {"module": "toy", "argv": (), "stage_hash": job["stage_hash"], "artefacts": ()}
        write_command(folder, job["stage"], StageCommand(**command, max_attempts=max_attempts))
        about = {"attempt": 1, "host": "n1", "pid": 1, "boot_id": "b", "token": "0" * 32}
        about |= {"start": now - 100, "heartbeat": now - 10, **facts}
        digest = stage_hash or job["stage_hash"]
        write_status(folder, StageStatus(stage=job["stage"], state=state, stage_hash=digest, **about))
        return folder

    def finish(self, *but):
        """Everything is done, but for some stages."""
        for job in self.plan.jobs:
            label = job["label"].replace("tiny.numbers.", "")
            if label not in but:
                self.put(label, "done")

    def record(self, label, wall_s, **facts):
        """Appends what an attempt has cost."""
        job = self.job(label)
        about = {"schema": 1, "stage": job["stage"], "stage_hash": job["stage_hash"], "attempt": 1}
        about |= {"outcome": "done", "exit_code": 0, "start": 0.0, "end": wall_s, "wall_s": wall_s}
        about |= {"cpus": 1, "gpus": 0, "gpu_s": 0.0, "energy_j": None, **facts}
        with open(self.root / job["folder"] / "attempts.jsonl", "a") as file:
            file.write(json.dumps(about) + "\n")

    def submit(self, name, arrays, report=None):
        """A submission: array -> (SLURM's id, lists of labels, one list an element)."""
        folder = self.root / "submissions" / name
        folder.mkdir(parents=True)
        jobs = []
        for array, (job, elements) in arrays.items():
            lines = []
            for index, labels in enumerate(elements):
                if not labels:
                    continue
                entries = [self.job(label) for label in labels]
                stages = [
                    {key: entry[key] for key in ("folder", "stage")}
                    | {"command": {"stage_hash": entry["stage_hash"]}}
                    for entry in entries
                ]
                lines.append(json.dumps({"index": index, "label": labels[-1], "stages": stages}))
            (folder / f"{array}.jsonl").write_text("\n".join(lines) + "\n")
            jobs.append({"array": array, "kind": array.partition("-")[0], "job": job, "size": len(elements)})
        if report:
            jobs.append({"array": "report", "kind": "report", "job": report, "size": 1})
        (folder / "jobs.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))


def slurm(monkeypatch, folder, *, squeue="exit 1", scancel="exit 0"):
    """Puts shell scripts for squeue and scancel before everything else on PATH; what scancel got is kept."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    calls = programs / "scancel.calls"
    for name, text in {"squeue": squeue, "scancel": f'echo "$@" >>{calls}; {scancel}'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return calls


def queue_of(**elements):
    """A squeue that answers: ``j7_0="PENDING|Priority"`` is one row."""
    rows = "\n".join(f"{name[1:]}|{text}" for name, text in elements.items())
    return f"cat <<'END'\n{rows}\nEND"
