"""The sides of the grid benchmark: our study, one command; trainings by TRL, one after the other."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.grid_work import Contender, Work, trl_settings, write_manifest

MOST_S = 3600.0
_TUNED = {"train_sampling_strategy": "sequential", "save_strategy": "no"}  # of rows that are sorted already


@dataclass
class Outcome:
    """What a side did.

    Attributes:
        wall_s: seconds from the start of its first process to the end of its last.
        losses: method -> loss of each step.
        step_s: method -> seconds of each step.
        parts: seconds of what it did, by name, summed over its processes; several may run at a time.
        at_once: trainings that run at a time.
    """

    wall_s: float
    losses: dict[str, list[float]]
    step_s: dict[str, list[float]]
    parts: dict[str, float] = field(default_factory=dict)
    at_once: int = 1

    @property
    def steps_wall_s(self) -> float:
        """Seconds that this machine spends in the steps of all methods."""
        return sum(map(sum, self.step_s.values())) / self.at_once


def run_ours(work: Work, cpus: int = 1) -> Outcome:
    """Runs the study's trainings and all that they need, with ``cpus`` threads each, side by side."""
    runs = work.folder / "runs"
    argv = ["experiments.run", str(write_manifest(work, cpus)), "--runs", str(runs), "--only", "stage=train"]
    before = time.time()
    wall_s = _command(argv, _environment(work, "ours", threads=cpus))
    root = runs / "grid"
    losses, steps = {}, {}
    for contender in work.contenders:
        (cell,) = root.glob(f"cells/random.words.{contender.name}.*")
        rows = _logged(cell)
        runtimes = [0.0, *(row["train_runtime"] for row in rows)]
        losses[contender.name] = [row["loss"] for row in rows]
        steps[contender.name] = [after - start for start, after in zip(runtimes, runtimes[1:], strict=False)]
    at_once = max(1, len(os.sched_getaffinity(0)) // cpus)
    return Outcome(wall_s, losses, steps, _our_parts(root, before, wall_s, steps), at_once)


def _logged(cell: Path) -> list[dict[str, Any]]:
    lines = (cell / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def _our_parts(
    root: Path, before: float, wall_s: float, steps: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Seconds by stage, as the statuses tell; before the first stage the runner reads, plans and imports."""
    statuses = [json.loads(path.read_text(encoding="utf-8")) for path in root.glob("*/*/status.*.json")]
    spent = {stage: _spent(statuses, stage) for stage in ("prepare", "reference", "train")}
    in_steps = sum(map(sum, steps.values()))
    return {
        "runner, until the first stage begins": min(each["start"] for each in statuses) - before,
        "prepare": spent["prepare"],
        "reference": spent["reference"],
        "train, steps": in_steps,
        "train, all else (claim, read, load, save)": spent["train"] - in_steps,
        "runner, after the last stage": before + wall_s - max(each["end"] for each in statuses),
    }


def _spent(statuses: Sequence[Mapping[str, Any]], stage: str) -> float:
    return float(sum(each["end"] - each["start"] for each in statuses if each["stage"] == stage))


def run_trl(work: Work, tuned: bool) -> Outcome:
    """Trains each method in a process of its own, which has all of the machine.

    Args:
        work: the files.
        tuned: pairs sorted by length, reference values computed beforehand, gradient checkpointing if that
            is faster (found out before the clock starts), no checkpoint of optimizer and weights beside the
            model; else as shipped.
    """
    side = "tuned" if tuned else "shipped"
    checkpointing = _faster_checkpointing(work) if tuned else {}
    wall_s, found = 0.0, {}
    for contender in work.contenders:
        settings: dict[str, Any] = {}
        if tuned:
            settings = {**_TUNED, "gradient_checkpointing": checkpointing[_memory_kind(contender)]}
            settings |= {"precompute_ref_log_probs": True} if contender.trainer == "dpo" else {}
        rows = work.sorted_rows if tuned else work.rows
        seconds, found[contender.name] = _train(work, side, contender, rows, settings)
        wall_s += seconds
    parts: dict[str, float] = {}
    for facts in found.values():
        for part, seconds in facts["part_s"].items():
            parts[part] = parts.get(part, 0.0) + seconds
    in_steps = sum(sum(facts["step_s"]) for facts in found.values())
    parts["train, beside the steps"] = parts.pop("train") - in_steps
    parts["steps"] = in_steps
    return Outcome(
        wall_s,
        {name: facts["losses"] for name, facts in found.items()},
        {name: facts["step_s"] for name, facts in found.items()},
        parts,
    )


def _memory_kind(contender: Contender) -> str:
    """Methods that gain or lose alike by checkpointing: by whether TRL builds the logits of all positions."""
    return "dpo" if contender.trainer == "dpo" else "cpo"


def _faster_checkpointing(work: Work) -> dict[str, bool]:
    """Whether recomputing is faster than keeping, by kind of trainer: steps on pairs of middling length."""
    lines = work.sorted_rows.read_text(encoding="utf-8").splitlines(keepends=True)
    n_pairs = len(lines) // work.n_steps
    middle = (len(lines) - n_pairs) // 2
    rows = work.folder / "probe.jsonl"
    rows.write_text("".join(lines[middle : middle + n_pairs]), encoding="utf-8")
    faster = {}
    for kind, contender in {_memory_kind(each): each for each in work.contenders}.items():
        step_s = {}
        for on in (True, False):
            settings = {**_TUNED, "gradient_checkpointing": on, "num_train_epochs": 2}
            _, facts = _train(work, f"probe-{on}", contender, rows, settings)
            step_s[on] = statistics.median(facts["step_s"])
        faster[kind] = step_s[True] <= step_s[False]
    return faster


def _train(
    work: Work, side: str, contender: Contender, rows: Path, settings: Mapping[str, Any]
) -> tuple[float, dict[str, Any]]:
    """Seconds of a process of TRL, and what it found; the processes of a side share the cache of datasets."""
    folder = work.folder / side / contender.name
    folder.mkdir(parents=True)
    job, facts = folder / "job.json", folder / "facts.json"
    asked = {
        "trainer": contender.trainer,
        "options": contender.options,
        "settings": {**trl_settings(), **settings},
        "model": str(work.model),
        "rows": str(rows),
        "output": str(folder / "output"),
        "facts": str(facts),
    }
    job.write_text(json.dumps(asked), encoding="utf-8")
    threads = len(os.sched_getaffinity(0))
    wall_s = _command(["benchmarks.grid_trl", str(job)], _environment(work, side, threads))
    return wall_s, json.loads(facts.read_text(encoding="utf-8"))


def _environment(work: Work, side: str, threads: int) -> dict[str, str]:
    """No hub, an empty cache of the side's own, and as many threads as the side is to use."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    caches = {"HF_HOME": str(work.folder / "cache" / side), "HF_HUB_OFFLINE": "1"}
    return {**inherited, **caches, "OMP_NUM_THREADS": str(threads)}


def _command(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of ``python -m ...``.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    started = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-m", *argv],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    seconds = time.perf_counter() - started
    if found.returncode:
        raise RuntimeError(f"{' '.join(argv)}: ended with {found.returncode}: {found.stdout[-3000:]}")
    return seconds
