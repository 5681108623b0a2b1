"""Values of completions under a fixed model, computed once for all rows."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from po.engine.forward import attach_engine
from po.engine.token_values import Asked
from po.methods.method import DataForm
from po.references.sources import LiveReference
from po.rows import Row
from po.training.collate import Collator, batch_order, completions_of

_TOKENS_A_BATCH = 4096  # padding included; one row is always taken
TABLES = ("logps", "entropy", "mismatched_logps")
"""Kinds with one value per completion; ``token_logps`` has one per token."""


def reference_values(
    model: Any,
    rows: Sequence[Row],
    precision: str,
    kinds: Sequence[str] = ("logps",),
    form: DataForm = "unpaired",
    images: Any = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Values of the rows' completions under a model, float32.

    Rows are taken by length to keep padding small; the results are in the order of ``rows``, a row's
    completions as ``po.training.collate.completions_of`` has them.

    Args:
        model: a language model, on its device.
        rows: token ids; for ``mismatched_logps`` with the completions of other prompts.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        kinds: which values. ``logps``, ``entropy`` and ``mismatched_logps``: (rows, most completions), NaN
            where a row has fewer; summed log-probabilities in nats, or the mean entropy in units of
            log(vocabulary). ``token_logps``: those of all tokens, one completion after the other.
        form: ``ranked`` for lists of candidates; ``unpaired`` for pairs and single completions.
        images: what reads the images of rows, as ``po.training.collate.Collator`` has it.
    """
    completions = [completions_of(row, form) for row in rows]
    most = max(map(len, completions))
    found = {kind: np.full((len(rows), most), np.nan, dtype=np.float32) for kind in kinds if kind in TABLES}
    tokens: dict[tuple[int, int], Any] = {}
    progress = tqdm(total=len(rows), desc="reference", unit="row", disable=not sys.stderr.isatty())
    ask = _asker(model, precision, kinds, form, images)
    for taken in _batches(rows, completions):
        values = ask([rows[i] for i in taken])
        places = [(taken[i], k) for i, k in batch_order([completions[i] for i in taken], form)]
        for kind, table in found.items():
            table[tuple(zip(*places, strict=True))] = values[kind]
        if "token_logps" in kinds:
            tokens |= zip(places, values["token_logps"], strict=True)
        progress.update(len(taken))
    progress.close()
    if "token_logps" in kinds:
        lengths = [(i, k, len(ids)) for i, each in enumerate(completions) for k, ids in enumerate(each)]
        found["token_logps"] = np.concatenate([tokens[i, k][:length] for i, k, length in lengths])
    return found


def _asker(
    model: Any, precision: str, kinds: Sequence[str], form: DataForm, images: Any
) -> Callable[[Sequence[Row]], dict[str, np.ndarray[Any, Any]]]:
    """What gives the values of a few rows, one per completion in the order of the collator."""
    columns = ("policy_mismatched",) if "mismatched_logps" in kinds else ()
    collator = Collator(form, columns, bool(model.config.is_encoder_decoder), images)
    asked = Asked(entropy="entropy" in kinds, tokens="token_logps" in kinds)
    model.eval()
    reference = LiveReference(attach_engine(model))

    def ask(rows: Sequence[Row]) -> dict[str, np.ndarray[Any, Any]]:
        batch = {name: tensor.to(model.device) for name, tensor in collator(rows).items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            values = reference.values(batch, asked)
            if columns:
                values["mismatched_logps"] = reference.mismatched(batch)
        return {name: value.float().cpu().numpy() for name, value in values.items()}

    return ask


def _batches(rows: Sequence[Row], completions: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[int]]:
    """Indices of rows that go together: the longest first, as many as the token budget takes."""
    most = max(map(len, completions))
    longest = [len(row["prompt_ids"]) + max(map(len, c)) for row, c in zip(rows, completions, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: -longest[i])
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_A_BATCH // (most * longest[order[start]]))
        yield order[start : start + size]
        start += size


def with_values(
    rows: Sequence[Row], found: Mapping[str, np.ndarray[Any, Any]], form: DataForm = "unpaired"
) -> list[Row]:
    """The rows with the values that ``reference_values`` gave for them."""
    tables = {kind: found[kind].tolist() for kind in found if kind in TABLES}
    tokens, start, extended = found.get("token_logps"), 0, []
    for index, row in enumerate(rows):
        lengths = [len(ids) for ids in completions_of(row, form)]
        more = {f"reference_{kind}": table[index][: len(lengths)] for kind, table in tables.items()}
        if tokens is not None:
            ends = [start + sum(lengths[: k + 1]) for k in range(len(lengths))]
            more["reference_token_logps"] = [
                tokens[end - length : end].tolist() for end, length in zip(ends, lengths, strict=True)
            ]
            start = ends[-1]
        extended.append(row | more)
    return extended
