"""Log-probabilities of pairs under one model, kept by content in the experiment's cache.

What a model says of some rows is computed once, whether it is asked as a policy or as the reference of
others, and in parts: what was interrupted goes on where it stopped. The files are those of a reference
folder (po.references.store).
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from po.faults import InputFault
from po.references.content import Content
from po.references.layout import Array
from po.references.lock import sole_writer
from po.references.store import PartFiles, drop_parts, is_filled, publish, stored_values
from po.references.values import reference_values
from po.rows import Row, rows_digest


@dataclass(frozen=True)
class Scorer:
    """A model that is asked.

    Attributes:
        name: for messages.
        key: decides the model.
        dtype: of its weights.
        load: gives the model, on its device.
    """

    name: str
    key: str
    dtype: str
    load: Callable[[], Any]


def pair_logps(scorer: Scorer, rows: Sequence[Row], precision: str, cache: Path) -> Array:
    """Summed log-probabilities of chosen and rejected, (pairs, 2), in nats; the model is loaded if needed.

    Values that were stored and are damaged are computed again.

    Args:
        scorer: the model.
        rows: ``prompt_ids``, ``chosen_ids``, ``rejected_ids``.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        cache: folder in which values are kept by content.

    Raises:
        InputFault: a value is not finite.
    """
    content = Content(
        model_sha256=hashlib.sha256(scorer.key.encode()).hexdigest(),
        dtype=scorer.dtype,
        data_sha256=rows_digest(rows),
        rows=len(rows),
        form="unpaired",
        precision=precision,
        kinds=("logps",),
    )
    folder = cache / content.key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        found = _stored(folder, content)
        if found is None:
            sys.stderr.write(f"{scorer.name}: {len(rows)} pairs\n")
            parts = PartFiles(folder, content.key)
            found = reference_values(scorer.load(), rows, precision, parts=parts)
            publish(folder, content, found)
        drop_parts(folder)
    return found["logps"]


def _stored(folder: Path, content: Content) -> dict[str, Array] | None:
    """What is stored; None where nothing is, or where it is damaged, which is told."""
    if not is_filled(folder):
        return None
    try:
        return stored_values(folder, content)
    except InputFault:
        sys.stderr.write(f"{folder}: the stored values are damaged; they are computed again\n")
        return None
