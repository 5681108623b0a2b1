"""Rows of token ids -> padded tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from po.faults import InputFault
from po.methods.method import DataForm, Method
from po.rows import Row
from po.training.layouts import CANDIDATES, COUNTED, Batch

ROW_COLUMNS = ("chosen_score", "rejected_score", "win_probability")  # one number per example
COMPLETION_COLUMNS = ("density_ratio", "desirable")  # one number per completion
STORED = ("reference_logps", "reference_entropy", "reference_token_logps", "reference_mismatched_logps")
MISMATCHED = "mismatched_"  # in front of the names of completions under other prompts
_Texts = Sequence[tuple[Sequence[int], Sequence[int]]]


def completions_of(row: Row, form: DataForm) -> list[list[int]]:
    """The completions of a row that a method reads, in the order of its stored reference values.

    Args:
        row: token ids.
        form: of the method; unpaired ones take pairs as two completions, ``sft`` takes the chosen one.
    """
    if form == "ranked":
        return list(row["candidates_ids"])
    if form == "supervised":
        return [row["completion_ids"] if "completion_ids" in row else row["chosen_ids"]]
    return [row["chosen_ids"], row["rejected_ids"]] if "chosen_ids" in row else [row["completion_ids"]]


def text_part(batch: Batch) -> dict[str, Tensor]:
    """What of a batch the model's forward takes: all that is in none of the tables above."""
    others = {*ROW_COLUMNS, *COMPLETION_COLUMNS, *STORED, CANDIDATES, COUNTED}
    return {
        name: value for name, value in batch.items() if name not in others and not name.startswith(MISMATCHED)
    }


def mismatched_part(batch: Batch) -> dict[str, Tensor]:
    """The completions under other prompts, as a batch of their own."""
    return {
        name.removeprefix(MISMATCHED): value for name, value in batch.items() if name.startswith(MISMATCHED)
    }


@dataclass(frozen=True)
class Collator:
    """Makes batches as ``po.training.layouts`` describes them, padded on the right.

    Padding is token 0 and masked, so it needs no token of its own.

    Attributes:
        form: what the method wants.
        columns: per-example inputs of the method, copied from the rows; ``desirable`` is made for pairs.
        encoder_decoder: prompts and completions in tensors of their own.
        images: turns the images of rows into tensors (``po.engine.images.ImageTensors``), a prompt's once for
            each of its completions; None where there are none.
    """

    form: DataForm = "paired"
    columns: tuple[str, ...] = ()
    encoder_decoder: bool = False
    images: Any = None

    @classmethod
    def of(
        cls, method: Method, params: Mapping[str, Any], encoder_decoder: bool = False, images: Any = None
    ) -> "Collator":
        """The collator that a method's trainer needs."""
        return cls(method.data, method.needed(params), encoder_decoder, images)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Collates rows.

        Returns:
            For a decoder-only model ``input_ids``, ``attention_mask``, ``completion_mask``, each
            (rows, length), and ``prompt_rows``, (rows,): the first row with the same prompt; for others see
            ``completion_values``. With ``mismatched_`` in front the same for the completions of other
            prompts. Stored values of the reference, (rows,); columns, (examples,).

        Raises:
            InputFault: rows have images, and ``images`` is None.
        """
        found = [completions_of(row, self.form) for row in rows]
        order = batch_order(found, self.form)
        prompts = [row["prompt_ids"] for row in rows]
        batch = self._texts([(prompts[i], found[i][k]) for i, k in order])
        if "policy_mismatched" in self.columns:
            other = self._texts([(prompts[i], rows[i]["mismatched_ids"][k]) for i, k in order])
            batch |= {f"{MISMATCHED}{name}": value for name, value in other.items()}
        batch |= self._pictures([image for i, _ in order for image in rows[i].get("images") or ()])
        batch |= {name: _stored(rows, order, name) for name in STORED if name in rows[0]}
        return batch | self._columns(rows, found, order)

    def _pictures(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Tensors of images; the completions of other prompts come with those of their prompts too."""
        if not images:
            return {}
        if self.images is None:
            raise InputFault(
                "the rows have images and nothing reads them: give the collator po.engine.images.ImageTensors"
            )
        found: dict[str, Tensor] = self.images(images)
        other = MISMATCHED if "policy_mismatched" in self.columns else ""
        return found | {f"{other}{name}": value for name, value in found.items()}

    def _texts(self, texts: _Texts) -> dict[str, Tensor]:
        if not self.encoder_decoder:
            first: dict[tuple[int, ...], int] = {}
            owners = [first.setdefault(tuple(prompt), row) for row, (prompt, _) in enumerate(texts)]
            return _padded(texts) | {"prompt_rows": torch.tensor(owners)}
        prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in texts))
        index = {prompt: row for row, prompt in enumerate(prompts)}
        ids, attention = _table(prompts)
        labels, mask = _table([completion for _, completion in texts])
        return {
            "completion_ids": labels,  # first: transformers takes the first tensor's rows for the batch's
            "input_ids": ids,
            "attention_mask": attention.long(),
            "completion_mask": mask,
            "prompt_rows": torch.tensor([index[tuple(prompt)] for prompt, _ in texts]),
        }

    def _columns(
        self, rows: Sequence[Row], found: list[list[list[int]]], order: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        batch = {
            name: torch.tensor([row[name] for row in rows], dtype=torch.float32)
            for name in ROW_COLUMNS
            if name in self.columns
        }
        if "density_ratio" in self.columns:
            batch["density_ratio"] = torch.tensor([rows[i]["density_ratio"][k] for i, k in order])
        if self.form == "unpaired":
            labels = [rows[i].get("desirable", k == 0) for i, k in order]
            batch["desirable"] = torch.tensor(labels, dtype=torch.bool)
        if self.form == "ranked":
            longest = max(map(len, found))
            batch[CANDIDATES] = torch.tensor([[k < len(c) for k in range(longest)] for c in found])
        return batch


def batch_order(found: list[list[list[int]]], form: DataForm) -> list[tuple[int, int]]:
    """(example, completion) of each row of the batch: lists one after the other, else side by side."""
    if form == "ranked":
        return [(i, k) for i, completions in enumerate(found) for k in range(len(completions))]
    return [(i, k) for k in range(max(map(len, found))) for i, each in enumerate(found) if k < len(each)]


def _stored(rows: Sequence[Row], order: list[tuple[int, int]], name: str) -> Tensor:
    values = [rows[i][name][k] for i, k in order]
    if name != "reference_token_logps":
        return torch.tensor(values, dtype=torch.float32)
    table = torch.zeros(len(values), max(map(len, values)))
    for row, tokens in enumerate(values):
        table[row, : len(tokens)] = torch.tensor(tokens)
    return table


def _table(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and a mask, each (rows, longest)."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
    return ids, mask


def _padded(texts: _Texts) -> dict[str, Tensor]:
    """(prompt, completion) ids -> ids and the two masks, each (rows, length)."""
    ids, attention = _table([[*prompt, *completion] for prompt, completion in texts])
    completion_mask = attention.clone()
    for row, (prompt, _) in enumerate(texts):
        completion_mask[row, : len(prompt)] = False
    return {"input_ids": ids, "attention_mask": attention.long(), "completion_mask": completion_mask}
