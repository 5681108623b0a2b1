"""Values of completions under a fixed model, computed once for all rows."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from po.engine.forward import attach_engine, shares_prompts
from po.engine.token_values import Asked
from po.faults import InputFault
from po.methods.method import DataForm
from po.references.layout import TABLES, Array, Layout, batches, row_by_row
from po.references.sources import LiveReference
from po.rows import Row
from po.training.collate import Collator, completions_of

LOGPS_RULE = "1: completion tokens with the final EOS, summed, nats, float32"
"""What a stored log-probability counts. Whoever changes that changes this; stored values are then refused."""
_TOKENS_A_BATCH = 8192  # completions, and each of its prompts once; one row is always taken
_PADDED_TOKENS_A_BATCH = 4096  # where prompts are not shared
_BATCHES_A_PART = 16


class Parts(Protocol):
    """What keeps values while they are computed, so that an interrupted pass can go on."""

    def read(self, number: int, rows: Sequence[int]) -> Mapping[str, Array] | None:
        """A part of these rows that was kept, as ``Layout.place`` takes it; None where there is none."""
        ...

    def write(self, number: int, rows: Sequence[int], values: Mapping[str, Array]) -> None:
        """Keeps a part."""
        ...


def reference_values(
    model: Any,
    rows: Sequence[Row],
    precision: str,
    kinds: Sequence[str] = ("logps",),
    form: DataForm = "unpaired",
    images: Any = None,
    parts: Parts | None = None,
) -> dict[str, Array]:
    """Values of the rows' completions under a model, float32.

    Rows are taken by length; the results are in the order of ``rows``, a row's completions as
    ``po.training.collate.completions_of`` has them.

    Args:
        model: a language model, on its device.
        rows: token ids; for ``mismatched_logps`` with the completions of other prompts.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        kinds: which values. ``logps``, ``entropy`` and ``mismatched_logps``: (rows, most completions), NaN
            where a row has fewer; summed log-probabilities in nats, or the mean entropy in units of
            log(vocabulary). ``token_logps``: those of all tokens, one completion after the other.
        form: ``ranked`` for lists of candidates; ``unpaired`` for pairs and single completions.
        images: what reads the images of rows, as ``po.training.collate.Collator`` has it.
        parts: keeps what is computed, and has what was; it must be of this very model, these rows and
            settings. What it does not have is computed in the same batches as without it.

    Raises:
        InputFault: a value is not finite; the parts before it are kept.
    """
    layout = Layout.of(rows, form)
    found, missing, n_kept = layout.empty(kinds), [], 0
    ask = _asker(model, precision, kinds, form, images)
    shared = shares_prompts(model)
    budget = _TOKENS_A_BATCH if shared else _PADDED_TOKENS_A_BATCH
    for number, together in enumerate(_parts(batches(rows, layout, budget, shared=shared))):
        indices = [i for taken in together for i in taken]
        kept = parts.read(number, indices) if parts else None
        if kept is None:
            missing.append((number, together, indices))
        else:
            _check_finite(kept, indices, rows, layout)
            layout.place(found, indices, kept)
            n_kept += len(indices)
    if n_kept:
        sys.stderr.write(f"reference: {n_kept} of {len(rows)} rows were computed before\n")
    progress = tqdm(
        total=len(rows), initial=n_kept, desc="reference", unit="row", disable=not sys.stderr.isatty()
    )
    for number, together, indices in missing:
        computed = []
        for taken in together:
            computed.append(ask([rows[i] for i in taken]))
            progress.update(len(taken))
        values = {kind: np.concatenate([each[kind] for each in computed]) for kind in kinds}
        _check_finite(values, indices, rows, layout)
        if parts:
            parts.write(number, indices, values)
        layout.place(found, indices, values)
    progress.close()
    return found


def _parts(taken: Iterator[list[int]]) -> Iterator[list[list[int]]]:
    """Some batches at a time."""
    together: list[list[int]] = []
    for batch in taken:
        together.append(batch)
        if len(together) == _BATCHES_A_PART:
            yield together
            together = []
    if together:
        yield together


def _check_finite(
    values: Mapping[str, Array], indices: Sequence[int], rows: Sequence[Row], layout: Layout
) -> None:
    """Refuses values that nothing can be held against.

    Args:
        values: of a part, as ``Layout.place`` takes them.
        indices: its rows.
        rows: all of them.
        layout: of all rows.

    Raises:
        InputFault: one is NaN or infinite; names the row and the kind.
    """
    for kind, flat in values.items():
        wrong = np.flatnonzero(~np.isfinite(flat))
        if not wrong.size:
            continue
        sizes = [layout.counts[i] if kind in TABLES else sum(layout.lengths[i]) for i in indices]
        row = indices[int(np.searchsorted(np.cumsum(sizes), wrong[0], side="right"))]
        which = f"row '{rows[row]['id']}'" if "id" in rows[row] else f"row {row}"
        raise InputFault(
            f"{which}: under the reference model {kind} is {flat[wrong[0]]}, and nothing can be compared "
            "with that; look for NaN or infinity in the model's weights, take precision fp32 where bf16 is "
            "too narrow for it, or leave out the row"
        )


def _asker(
    model: Any, precision: str, kinds: Sequence[str], form: DataForm, images: Any
) -> Callable[[Sequence[Row]], dict[str, Array]]:
    """What gives the values of a few rows, row by row."""
    columns = ("policy_mismatched",) if "mismatched_logps" in kinds else ()
    collator = Collator(form, columns, bool(model.config.is_encoder_decoder), images)
    asked = Asked(entropy="entropy" in kinds, tokens="token_logps" in kinds)
    model.eval()
    reference = LiveReference(attach_engine(model))

    def ask(rows: Sequence[Row]) -> dict[str, Array]:
        batch = {name: tensor.to(model.device) for name, tensor in collator(rows).items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            values = reference.values(batch, asked)
            if columns:
                values["mismatched_logps"] = reference.mismatched(batch)
        found = {kind: values[kind].float().cpu().numpy() for kind in kinds}
        return row_by_row(found, [completions_of(row, form) for row in rows], form)

    return ask


def with_values(rows: Sequence[Row], found: Mapping[str, Array], form: DataForm = "unpaired") -> list[Row]:
    """The rows with the values that ``reference_values`` gave for them.

    One number per completion becomes a list of floats, no larger than a view would be. Values of tokens stay
    where they are: a row has views of ``found``, which may be a file that is mapped into memory.
    """
    layout, extended = Layout.of(rows, form), []
    tables = {kind: found[kind].tolist() for kind in found if kind in TABLES}
    tokens = found.get("token_logps")
    for index, row in enumerate(rows):
        count = len(layout.lengths[index])
        more = {f"reference_{kind}": table[index][:count] for kind, table in tables.items()}
        if tokens is not None:
            more["reference_token_logps"] = layout.tokens(tokens, index)
        extended.append(row | more)
    return extended
