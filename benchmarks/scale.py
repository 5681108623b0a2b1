"""A grid of 5,051 cells: planned, submitted (dry) and watched, each by the command that a person types.

python -m benchmarks.scale

Every command is a process of its own. A third of the stages has statuses then, and a hundred are held by
claims; nothing is trained. Goals: ten seconds and 1 GB a command, fewer than 10,000 entries in every folder.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.table import Row, plain, run
from experiments.claim import Claim
from experiments.job import Job
from experiments.loading import Loaded, load
from experiments.owner import this_process
from experiments.stage_status import StageStatus, State, write_status

GOAL_S, GOAL_MB, GOAL_ENTRIES = 10.0, 1000.0, 10_000
SEEDS, BETAS, RATES = 10, 50, 10  # 5,000 cells of dpo
HELD = 100
MOST_S = 120.0
LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(pid, 0)
times = [time.perf_counter() - started, usage.ru_utime + usage.ru_stime]
print(json.dumps([os.waitstatus_to_exitcode(status), *times, usage.ru_maxrss]))
"""
# a process begins with the memory of the one that starts it: so that is a small one, and not this
DEMO = Path("experiments/manifests/demo.yaml")


def big_manifest() -> dict[str, Any]:
    """The demo's study with ten seeds, and five hundred points of dpo."""
    study: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    study["name"], study["seeds"] = "big", list(range(1, SEEDS + 1))
    study["methods"]["dpo"] = {
        "from": "sft",
        "grid": {
            "beta": [round(0.01 * number, 2) for number in range(1, BETAS + 1)],
            "learning_rate": [number / 100_000 for number in range(1, RATES + 1)],
        },
    }
    return study


def command(argv: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of a processor and peak memory (MB) of ``python -m ...``.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile() as said:
        launcher = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, "-m", *argv]
        found = subprocess.run(launcher, stdout=subprocess.PIPE, stderr=said, timeout=MOST_S, check=True)
        code, seconds, cpu_s, kilobytes = json.loads(found.stdout)
        if code:
            said.seek(0)
            end = said.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{' '.join(argv)}: ended with {code}: {end}")
    return seconds, cpu_s, kilobytes / 1000


def _leave_statuses(loaded: Loaded) -> list[Job]:
    """Makes every third stage of those that come first look done; returns the next ones."""
    jobs = list(loaded.graph.jobs.values())
    n_done = len(jobs) // 3
    for job in jobs[:n_done]:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_status(job.folder, _status(job, "done"))
    return jobs[n_done : n_done + HELD]


def _status(job: Job, state: State) -> StageStatus:
    owner, now = this_process(60.0), time.time()
    return StageStatus(
        stage=job.stage,
        state=state,
        stage_hash=job.stage_hash,
        attempt=1,
        host=owner.host,
        pid=owner.pid,
        boot_id=owner.boot_id,
        token=owner.token,
        start=now - 60,
        heartbeat=now,
        end=now if state == "done" else None,
    )


def _most_entries(root: Path) -> tuple[int, str]:
    counts = ((len(inside) + len(files), folder) for folder, inside, files in os.walk(root))
    most, folder = max(counts)
    return most, os.path.relpath(folder, root)


def _row(name: str, found: tuple[float, float, float]) -> Row:
    seconds, cpu_s, megabytes = found
    verdict = "" if seconds < GOAL_S and megabytes < GOAL_MB else "; MISSES THE GOAL"
    return plain(
        f"{name} (goal: {GOAL_S:.0f} s, {GOAL_MB:.0f} MB)",
        f"{seconds:.1f} s ({cpu_s:.1f} of a processor), {megabytes:.0f} MB{verdict}",
    )


def measure() -> list[Row]:
    """Seconds and memory of each command; sizes of what lies in the run folder."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
        manifest, runs = Path(name) / "big.yaml", Path(name) / "runs"
        manifest.write_text(json.dumps(big_manifest()), encoding="utf-8")  # JSON is YAML
        argv = [str(manifest), "--runs", str(runs)]
        rows = [
            _row("plan", command(["experiments.plan", *argv])),
            _row("submit, dry", command(["slurm.submit", *argv, "--dry-run"])),
        ]
        loaded = load(manifest, runs)
        loaded.write_plan()
        for job in _leave_statuses(loaded):
            job.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(Claim(job.folder, job.stage))
            write_status(job.folder, _status(job, "running"))
        rows += [
            _row("status, a third done", command(["experiments.status", str(loaded.root)])),
            _row("plan, a third done", command(["experiments.plan", *argv])),
            _row("submit, dry, a third done", command(["slurm.submit", *argv, "--dry-run"])),
        ]
        most, folder = _most_entries(loaded.root)
        plan_mb = (loaded.root / "plan.json").stat().st_size / 1e6
    verdict = "" if most < GOAL_ENTRIES else "; MISSES THE GOAL"
    counts = (
        f"{len(loaded.grid.cells):,} cells, {len(loaded.graph.jobs):,} stages; plan.json {plan_mb:.1f} MB"
    )
    entries = plain(f"most entries in a folder (goal: {GOAL_ENTRIES:,})", f"{most:,} in {folder}{verdict}")
    return [plain("the grid", counts), *rows, entries]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
