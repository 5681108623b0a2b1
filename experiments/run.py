"""Run what is missing of a study on this machine.

    python -m experiments.run experiments/manifests/demo.yaml
    python -m experiments.run MANIFEST --only method=dpo,model=tiny --jobs 2 --gpus 0,1
    python -m experiments.run MANIFEST --smoke

Running the same command again is how to resume, after an interruption, a crash or a change of the manifest.
Ctrl-C once stops at the next safe point, twice at once. Several runners may work on one folder.

Writes  runs/<name>/ (see docs/files.md)
Exit    0 everything done, 1 something failed (the rest was done), 130 interrupted,
        2 a fault in the manifest, or something that it needs is not on this machine; nothing was started
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.display import TerminalDisplay
from experiments.job import Job
from experiments.loading import EXIT_BAD_MANIFEST, Loaded, load
from experiments.manifest import locate
from experiments.pieces import missing_pieces
from experiments.problems import ManifestError
from experiments.scheduler import Scheduler, make_slots
from experiments.selectors import parse_only

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        loaded = load(options.manifest, options.runs, smoke=options.smoke)
        jobs = loaded.graph.select(parse_only(options.only))
        if problems := missing_pieces(loaded, jobs):
            raise ManifestError(loaded.path, locate(loaded.path, problems))
    except ValueError as error:  # ManifestError among them
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_MANIFEST
    gpus = [gpu for gpu in (options.gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "")).split(",") if gpu]
    if fault := _lacks(jobs, gpus):
        sys.stderr.write(f"{fault}\n")
        return EXIT_BAD_MANIFEST
    if not any(job.gpus for job in jobs) and shutil.which("nvidia-smi"):
        sys.stderr.write("no stage asks for a GPU (resources: {default: {gpus: 1}}); all run on the CPU\n")
    for warning in loaded.grid.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    try:
        loaded.write_plan()
        outcomes = _run(jobs, options.jobs, gpus)
    except OSError as error:  # its message says what to do
        sys.stderr.write(f"{error}\n")
        return 1
    if "interrupted" in outcomes or len(outcomes) < len(jobs):
        sys.stderr.write(f"{_interrupted(len(jobs) - len(outcomes))}\n")
        return INTERRUPTED
    code = 1 if {"failed", "blocked"} & set(outcomes) else 0
    return max(code, _report(loaded)) if options.report else code


def _interrupted(n_left: int) -> str:
    """The last line after Ctrl-C."""
    left = f"{n_left} stage{'s' if n_left != 1 else ''} not started; " if n_left else ""
    return f"interrupted; {left}the same command goes on"


def _lacks(jobs: Sequence[Job], gpus: Sequence[str]) -> str | None:
    """What this machine cannot give to a job; None if all can run."""
    if len(set(gpus)) < len(gpus):
        return f"--gpus {','.join(gpus)} names a GPU twice"
    most, widest = max(jobs, key=lambda job: job.gpus), max(jobs, key=lambda job: job.limits.nodes)
    if widest.limits.nodes > 1:
        asked = f"{widest.label} asks for {widest.limits.nodes} nodes"
        return f"{asked}, and this runner has one; use sbatch slurm/grid.sh, or change resources"
    if most.gpus > len(gpus):
        return f"{most.label} asks for {most.gpus} GPUs, and {len(gpus)} may be used; name them with --gpus"
    return None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument(
        "--only",
        default="",
        metavar="KEY=VALUE,...",
        help="only the matching cells and what they need; keys: model, task, method, seed, stage, params.X",
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=None,
        metavar="N",
        help="at most N stages at a time (default: as many as the CPUs allow)",
    )
    parser.add_argument(
        "--gpus",
        default="",
        metavar="0,1",
        help="the GPUs that may be used (default: CUDA_VISIBLE_DEVICES, else none)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where experiments are kept (default: runs)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="two optimizer steps and four segments of every shape of cell, in runs/<name>-smoke",
    )
    parser.add_argument("--report", action="store_true", help="build the report at the end")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    """A whole number from 1 for argparse, which names the option and this function's message."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _run(jobs: list[Job], most_jobs: int | None, gpus: list[str]) -> list[str]:
    display = TerminalDisplay(jobs)
    scheduler = Scheduler(jobs, make_slots(most_jobs, gpus), display)
    asked = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        display.say(
            "stopping at the next safe point; once more to stop at once" if asked == 1 else "stopping at once"
        )
        scheduler.stop(kill=asked > 1)

    before: dict[int, Any] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return list(scheduler.run().values())
    finally:
        display.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(loaded: Loaded) -> int:
    return subprocess.run([sys.executable, "-m", "reports.build", str(loaded.root)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
