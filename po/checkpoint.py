"""Attempts: checkpoints that are complete or do not count, stopping at a step boundary, publishing by renaming."""

import json
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.models import POINTER, write_json

MARKER = "complete.json"
INTERRUPTED = 85  # exit code: stopped cleanly, to be started again


def new_attempt(folder: Path) -> Path:
    """Makes and returns ``attempts/<n>``, n one more than any before; two processes never get the same one."""
    attempts = folder / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name) for p in attempts.iterdir() if p.name.isdigit()), default=0)
    while True:
        try:
            (attempts / str(number)).mkdir()
            return attempts / str(number)
        except FileExistsError:
            number += 1


def newest_checkpoint(folder: Path, stage_hash: str) -> Path | None:
    """The complete checkpoint with the most steps of any earlier attempt at the same training."""
    found: list[tuple[int, Path]] = []
    for marker in folder.glob(f"attempts/*/checkpoint-*/{MARKER}"):
        facts = json.loads(marker.read_text(encoding="utf-8"))
        if facts["stage_hash"] == stage_hash:
            found.append((facts["step"], marker.parent))
    return max(found)[1] if found else None


class AttemptCallback(TrainerCallback):  # type: ignore[misc]
    """Marks checkpoints complete, reports progress, stops at the next step boundary after SIGTERM.

    Attributes:
        interrupted: the training was asked to stop and did.
    """

    def __init__(self, folder: Path, stage_hash: str) -> None:
        self.folder, self.stage_hash = folder, stage_hash
        self.asked = self.interrupted = False
        self._reported = 0.0

    def listen(self) -> None:
        """From now on SIGTERM and SIGUSR1 mean: save at the next step boundary and stop."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Progress, and the stop that was asked for."""
        if state.is_world_process_zero and time.monotonic() - self._reported > 1:
            write_json(self.folder / "progress.train.json", {"step": state.global_step, "total": state.max_steps})
            self._reported = time.monotonic()
        if self.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            self.interrupted = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The marker is written last, so a checkpoint without it is known to be torn."""
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(checkpoint / MARKER, {"step": state.global_step, "stage_hash": self.stage_hash})
            for older in self.folder.glob("attempts/*/checkpoint-*"):
                if older != checkpoint and (older / MARKER).is_file():
                    shutil.rmtree(older)


def publish(attempt: Path, folder: Path, result: dict[str, Any], log: list[dict[str, Any]], *, keep_attempts: bool) -> None:
    """Moves a finished model to its place; ``model.json`` comes last and makes it count."""
    (folder / POINTER).unlink(missing_ok=True)
    if (folder / "model").exists():
        shutil.rmtree(folder / "model")
    (attempt / "model").rename(folder / "model")
    lines = "".join(json.dumps(row) + "\n" for row in log)
    temporary = attempt / "train_log.jsonl"
    temporary.write_text(lines, encoding="utf-8")
    temporary.rename(folder / "train_log.jsonl")
    write_json(folder / "train.json", result)
    write_json(folder / POINTER, {"path": "model"})
    if not keep_attempts:
        shutil.rmtree(folder / "attempts")
