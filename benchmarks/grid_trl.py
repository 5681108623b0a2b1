"""One training by TRL, as a process of its own: what a person starts for each method.

python -m benchmarks.grid_trl JOB.json

Reads   JOB.json: ``trainer`` (dpo, cpo, orpo), ``options`` and ``settings`` (of its configuration),
        ``model``, ``rows``, ``output``, ``facts``
Writes  the model into ``output``; into ``facts`` loss and seconds of each step, seconds of each part
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

_PLACES = {
    "dpo": ("trl", "DPO"),
    "cpo": ("trl.experimental.cpo", "CPO"),
    "orpo": ("trl.experimental.orpo", "ORPO"),
}
PARTS = ("imports", "load", "start", "train", "save")


def _clock(seconds: list[float]) -> Any:
    """A callback that adds the seconds of each step to the list."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        started = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    return Clock()


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Trains as the job says and saves the model.

    Returns:
        ``losses`` and ``step_s``, one each step; ``part_s``: seconds of ``imports``, ``load``, ``start`` (of
        the trainer: tokenization, copy of the model or its reference values), ``train`` and ``save``.
    """
    marks, steps = [time.perf_counter()], list[float]()
    module, kind = _PLACES[job["trainer"]]
    place = importlib.import_module(module)
    trainer_class, config_class = getattr(place, f"{kind}Trainer"), getattr(place, f"{kind}Config")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    marks.append(time.perf_counter())
    rows = load_dataset("json", data_files=job["rows"], split="train")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    marks.append(time.perf_counter())
    trainer = trainer_class(
        model=model,
        args=config_class(output_dir=job["output"], **job["settings"], **job["options"]),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[_clock(steps)],
    )
    marks.append(time.perf_counter())
    trainer.train()
    marks.append(time.perf_counter())
    trainer.save_model(job["output"])
    marks.append(time.perf_counter())
    seconds = [after - before for before, after in zip(marks, marks[1:], strict=False)]
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"losses": losses, "step_s": steps, "part_s": dict(zip(PARTS, seconds, strict=True))}


def main() -> int:
    """Runs the job that the command line names."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["facts"]).write_text(json.dumps(train(job)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
