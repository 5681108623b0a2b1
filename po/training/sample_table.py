"""Samples at each evaluation: what policy and reference answer to a few prompts, as a table."""

import copy
import html
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.engine.sharing import submodules_evaluating
from po.references.moving import MovingReference
from po.references.sources import LiveReference, Reference
from po.rows import Row
from po.training.collate import completions_of

_FIXED = "reference.json"
Images = Callable[[Sequence[Any]], Mapping[str, Tensor]]


class SampleTable(TrainerCallback):  # type: ignore[misc]
    """Writes ``step-N.jsonl`` and ``step-N.md`` at each evaluation: prompt, policy, reference, chosen.

    Samples are greedy. Neither the state of the random numbers nor that of a loss is touched. A reference
    whose values are stored is no longer at hand. It is the policy before its first step, unless `remember`
    was told of another, so its samples are taken then, and kept in the folder for a run that is resumed. With
    several processes all generate, one writes.

    Args:
        tokenizer: of transformers, or a processor that has one.
        rows: of token ids; the first ``n`` are taken.
        reference: of the training; None where the method has none.
        n: number of prompts.
        max_new_tokens: longest sample.
        folder: where the tables go.
        images: turns images of rows into what the model takes (``po.engine.images.ImageTensors``).
    """

    def __init__(
        self,
        tokenizer: Any,
        rows: Sequence[Row],
        reference: Reference | None,
        n: int,
        max_new_tokens: int,
        folder: Path,
        images: Images | None = None,
    ) -> None:
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self.rows = list(rows[:n])
        self.reference = reference
        self.max_new_tokens = max_new_tokens
        self.folder = folder
        self.images = images
        self._fixed: list[str] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Samples of a reference that only the policy's start can tell."""
        if self.reference is not None and not isinstance(self.reference, LiveReference):
            self._of_reference(kwargs["model"], state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Writes the table."""
        columns = {
            "prompt": [self._text(row["prompt_ids"]) for row in self.rows],
            "policy": self.sample(kwargs["model"]),
        }
        if self.reference is not None and (found := self._of_reference(kwargs["model"], state)) is not None:
            columns["reference"] = found
        columns["chosen"] = [self._text(_wanted(row)) for row in self.rows]
        if not state.is_world_process_zero:
            return
        table = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        self._write(table, state.global_step)
        if "wandb" in args.report_to:
            _to_wandb(table, state.global_step)

    def remember(self, reference: Any) -> None:
        """Takes the samples of a reference that will not be at hand later."""
        self._fixed = self.sample(reference)

    def sample(self, model: Any) -> list[str]:
        """What a model answers to the prompts, greedily; the state of the random numbers is put back."""
        cuda = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad(), submodules_evaluating(model):
            return self._generate(model)

    def _generate(self, model: Any) -> list[str]:
        is_encoder_decoder = bool(model.config.is_encoder_decoder)
        prompts = [row["prompt_ids"] for row in self.rows]
        longest = max(map(len, prompts))
        ids, mask = _padded(prompts, left=not is_encoder_decoder)
        found = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=self._settings(model, longest),
            **self._pictures(model, ids),
        )
        return [self._text(row) for row in found[:, 0 if is_encoder_decoder else longest :].tolist()]

    def _settings(self, model: Any, longest: int) -> Any:
        """The model's own settings (start, forced language), but greedy and unpenalized."""
        settings = copy.deepcopy(model.generation_config)
        config = model.config.get_text_config()
        positions = None if config.is_encoder_decoder else getattr(config, "max_position_embeddings", None)
        room = self.max_new_tokens if positions is None else min(self.max_new_tokens, positions - longest)
        ends = settings.eos_token_id
        ends = list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]
        end = self.tokenizer.eos_token_id
        settings.update(
            max_new_tokens=max(1, room),
            max_length=None,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            use_cache=True,
            eos_token_id=sorted({*ends, *([] if end is None else [end])}) or None,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "typical_p")),
        )
        return settings

    def _pictures(self, model: Any, ids: Tensor) -> dict[str, Any]:
        found = [image for row in self.rows for image in row.get("images") or ()]
        if not found or self.images is None:
            return {}
        from po.engine.images import token_marks

        tensors = {**self.images(found), **token_marks(model, ids)}
        return {name: tensor.to(model.device) for name, tensor in tensors.items()}

    def _of_reference(self, policy: Any, state: TrainerState) -> list[str] | None:
        """Samples of the reference; None where nothing can tell them any more."""
        if self._fixed is not None:
            return self._fixed
        if isinstance(self.reference, LiveReference):
            with self.reference.asked() as model:
                found = self.sample(model)
            if not isinstance(self.reference, MovingReference):
                self._fixed = found
            return found
        saved = self.folder / _FIXED
        if state.global_step == 0:
            self._fixed = self.sample(policy)
            if state.is_world_process_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                saved.write_text(json.dumps(self._fixed, ensure_ascii=False), encoding="utf-8")
        elif saved.is_file():
            self._fixed = json.loads(saved.read_text(encoding="utf-8"))
        return self._fixed

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _write(self, table: Sequence[Mapping[str, str]], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
        (self.folder / f"step-{step}.jsonl").write_text(lines, encoding="utf-8")
        (self.folder / f"step-{step}.md").write_text(markdown(table, step), encoding="utf-8")


def markdown(table: Sequence[Mapping[str, str]], step: int) -> str:
    """Samples as a Markdown table.

    Args:
        table: rows of one set of columns.
        step: of the training.
    """
    columns = list(table[0])
    rows = [columns, ["---"] * len(columns), *([_cell(row[name]) for name in columns] for row in table)]
    return f"# Samples at step {step}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _cell(text: str) -> str:
    """A text that stays within its cell."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", "<br>")


def _wanted(row: Row) -> list[int]:
    """The completion that data prefer; nothing where it is one to learn away from."""
    if not row.get("desirable", True):
        return []
    return completions_of(row, "ranked" if "candidates_ids" in row else "unpaired")[0]


def _padded(prompts: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask, each (prompts, longest); a decoder goes on at the right end, so it is padded left."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), None) if left else slice(0, len(prompt))
        ids[row, place] = torch.tensor(prompt)
        mask[row, place] = 1
    return ids, mask


def _to_wandb(table: Sequence[Mapping[str, str]], step: int) -> None:
    wandb: Any = importlib.import_module("wandb")
    if wandb.run is not None:
        data = [list(row.values()) for row in table]
        wandb.log({"samples": wandb.Table(columns=list(table[0]), data=data), "train/global_step": step})
