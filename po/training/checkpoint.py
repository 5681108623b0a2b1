"""Attempts: checkpoints complete or of no account, stopping at a step boundary, publishing by renaming."""

import contextlib
import json
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.files import sync_tree, write_json, write_whole
from po.models.loading import POINTER
from po.training.fence import still_ours, stop_if_lost

MARKER = "complete.json"
INTERRUPTED = 85  # exit code: stopped cleanly, to be started again
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def new_attempt(folder: Path) -> Path:
    """Makes and returns ``attempts/<n>``, n above all before; two processes never get the same one."""
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
    """The complete checkpoint with the most steps of any earlier attempt at the same training.

    One whose files are missing or of another size than when it was complete is passed over, with a warning.
    """
    found: list[tuple[int, Path]] = []
    sizes: dict[Path, dict[str, int]] = {}
    for marker in folder.glob(f"attempts/*/checkpoint-*/{MARKER}"):
        try:
            facts = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            warnings.warn(f"{marker} is damaged; its checkpoint is passed over", stacklevel=2)
            continue
        if facts["stage_hash"] == stage_hash:
            found.append((facts["step"], marker.parent))
            sizes[marker.parent] = facts.get("bytes", {})
    for _, checkpoint in sorted(found, reverse=True):
        now = _sizes(checkpoint)
        changed = [name for name, size in sizes[checkpoint].items() if now.get(name) != size]
        if not changed:
            return checkpoint
        warnings.warn(f"{checkpoint / changed[0]} is damaged; its checkpoint is passed over", stacklevel=2)
    return None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files of a checkpoint but for its marker, by path within it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


class AttemptCallback(TrainerCallback):  # type: ignore[misc]
    """Marks checkpoints complete, reports progress, stops at the next step boundary after SIGTERM.

    Args:
        folder: the cell's folder.
        stage_hash: written into the markers; a checkpoint of other settings is never resumed.
        keep: keep older checkpoints when a newer one is complete.

    Attributes:
        interrupted: the training was asked to stop and did.
    """

    def __init__(self, folder: Path, stage_hash: str, *, keep: bool) -> None:
        self.folder, self.stage_hash, self.keep = folder, stage_hash, keep
        self.interrupted = False
        self._asked = False
        self._reported = 0.0
        self._first = (0, 0)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within, SIGTERM and SIGUSR1 mean: save at the next step boundary and stop. Main thread only."""
        before = {number: signal.signal(number, self._ask) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _stop_is_asked(self) -> bool:
        """Whether any process was asked: all must stop after the same step, or they wait for one another."""
        state = PartialState()
        if state.num_processes == 1:
            return self._asked
        return bool(reduce(torch.tensor(float(self._asked), device=state.device), reduction="sum").item())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Where this attempt starts; what an earlier one has left is not taken for its progress."""
        self._first = (state.global_step, state.num_input_tokens_seen)
        self._report(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """How far this attempt came, finished or stopped."""
        self._report(state)

    def _report(self, state: TrainerState) -> None:
        """Progress with what speed and cost are told from; tokens are counted over all processes."""
        if not state.is_world_process_zero:
            return
        first_step, first_tokens = self._first
        progress = {
            "step": state.global_step,
            "total": state.max_steps,
            "first_step": first_step,
            "tokens": state.num_input_tokens_seen,
            "first_tokens": first_tokens,
        }
        write_json(self.folder / "progress.train.json", progress)
        self._reported = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Progress, the log's last row, and the stop that was asked for."""
        if time.monotonic() - self._reported > 1:
            self._report(state)
        if state.global_step >= state.max_steps:
            control.should_log = True
        elif self._stop_is_asked():
            control.should_save = control.should_training_stop = True
            self.interrupted = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The marker comes when every process has saved, so a checkpoint without it is known to be torn."""
        PartialState().wait_for_everyone()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            sync_tree(checkpoint)  # takes its time, so before the claim is looked at
        stop_if_lost()
        if state.is_world_process_zero:
            facts = {"step": state.global_step, "stage_hash": self.stage_hash, "bytes": _sizes(checkpoint)}
            write_json(checkpoint / MARKER, facts)
            if not self.keep and still_ours():
                self._remove_all_but(checkpoint)

    def _remove_all_but(self, checkpoint: Path) -> None:
        for older in self.folder.glob("attempts/*/checkpoint-*"):
            if older != checkpoint and (older / MARKER).is_file():
                (older / MARKER).unlink()  # half a removal must not look complete
                shutil.rmtree(older)


def publish(
    attempt: Path, folder: Path, result: dict[str, Any], log: list[dict[str, Any]], *, keep_attempts: bool
) -> None:
    """Moves a finished model to its place; ``model.json`` comes last and makes it count.

    Args:
        attempt: holds ``model/``, which is on the disk.
        folder: the cell's folder.
        result: content of ``train.json``.
        log: rows of ``train_log.jsonl``.
        keep_attempts: leave the checkpoints where they are.
    """
    (folder / POINTER).unlink(missing_ok=True)
    if (folder / "model").exists():
        shutil.rmtree(folder / "model")
    (attempt / "model").rename(folder / "model")
    lines = "".join(json.dumps(row) + "\n" for row in log)
    write_whole(folder / "train_log.jsonl", lambda file: file.write(lines.encode()))
    write_json(folder / "train.json", result)
    write_json(folder / POINTER, {"path": "model"})
    if not keep_attempts:
        shutil.rmtree(folder / "attempts")
