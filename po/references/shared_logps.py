"""Log-probabilities of pairs under one model, kept by content in the experiment's cache.

What a model says of some rows is computed once, whether it is asked as a policy or as the reference of
others, and in parts: what was interrupted goes on where it stopped.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from po.references.layout import Array
from po.references.lock import sole_writer
from po.references.store import PartFiles, drop_parts, write_whole
from po.references.values import LOGPS_RULE, reference_values
from po.rows import Row, rows_digest


@dataclass(frozen=True)
class Scorer:
    """A model that is asked.

    Attributes:
        name: for messages.
        key: decides its weights and their dtype.
        load: gives the model, on its device.
    """

    name: str
    key: str
    load: Callable[[], Any]


def pair_logps(scorer: Scorer, rows: Sequence[Row], precision: str, cache: Path) -> Array:
    """Summed log-probabilities of chosen and rejected, (pairs, 2), in nats; the model is loaded if needed.

    Args:
        scorer: the model.
        rows: ``prompt_ids``, ``chosen_ids``, ``rejected_ids``.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        cache: folder in which values are kept by content.
    """
    content = json.dumps([scorer.key, rows_digest(rows), precision, LOGPS_RULE])
    key = hashlib.sha256(content.encode()).hexdigest()
    folder = cache / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        found = _read(folder / "logps.npy", len(rows))
        if found is None:
            sys.stderr.write(f"{scorer.name}: {len(rows)} pairs\n")
            parts = PartFiles(folder, key)
            found = reference_values(scorer.load(), rows, precision, parts=parts)["logps"]
            write_whole(folder / "logps.npy", partial(np.save, arr=found))
        drop_parts(folder)
    return found


def _read(path: Path, n_rows: int) -> Array | None:
    """Stored values; None where they are missing, or not whole and finite."""
    try:
        found: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (n_rows, 2) and np.isfinite(found).all() else None
