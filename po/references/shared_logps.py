"""Log-probabilities of pairs under one model, kept by content in the experiment's cache.

What a model says of some rows is computed once, whether it is asked as a policy or as the reference of
others, and in parts: what was interrupted goes on where it stopped.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from po.references.values import LOGPS_RULE, reference_values
from po.rows import Row, rows_digest

PART = 512  # pairs between two writes


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


def pair_logps(
    scorer: Scorer, rows: Sequence[Row], precision: str, cache: Path
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Summed log-probabilities of chosen and rejected, (pairs, 2), in nats; the model is loaded if needed.

    Args:
        scorer: the model.
        rows: ``prompt_ids``, ``chosen_ids``, ``rejected_ids``.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        cache: folder in which values are kept by content.
    """
    content = json.dumps([scorer.key, rows_digest(rows), precision, LOGPS_RULE, PART])
    folder = cache / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Any] = []
    model: Any = None
    for start in range(0, len(rows), PART):
        path = folder / f"{start}.npy"
        part = _read(path, min(PART, len(rows) - start))
        if part is None:
            model = scorer.load() if model is None else model
            part = reference_values(model, rows[start : start + PART], precision)["logps"]
            _write(path, part)
            done = min(start + PART, len(rows))
            sys.stderr.write(f"{scorer.name}: {done} of {len(rows)} pairs\n")
        parts.append(part)
    return np.concatenate(parts)


def _read(path: Path, n_rows: int) -> Any:
    """A stored part; None where it is missing, or not whole and finite."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (n_rows, 2) and np.isfinite(found).all() else None


def _write(path: Path, values: Any) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    np.save(temporary, values)
    temporary.replace(path)
