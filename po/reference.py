"""Reference log-probabilities: computed once per (model, data, precision), checked by content on loading.

    python -m po.reference runs/NAME/reference/FOLDER

Reads   FOLDER/unit.json, the pairs and the parent's model that it names
Writes  FOLDER/logps.npy (pairs x [chosen, rejected], summed, in nats), FOLDER/reference.json (digests)
Exit    0 done or already done, 65 bad data or settings
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from po.collate import PairCollator
from po.faults import InputFault, told
from po.logps import attach_engine, completion_logps
from po.models import load_model, model_location, write_json
from po.rows import PAIR_IDS, Row, read_rows, rows_digest

_TOKENS_A_BATCH = 4096  # padding included; one pair is always taken


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and persistent buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def reference_logps(model: Any, rows: Sequence[Row], precision: str) -> np.ndarray[Any, Any]:
    """Summed log-probabilities of chosen and rejected completions, in nats, float32, shape (pairs, 2).

    Pairs are taken by length to keep padding small; the result is in the order of ``rows``.

    Args:
        model: a causal language model, on its device.
        rows: pairs of token ids.
        precision: ``bf16`` for autocast, ``fp32`` for none.
    """
    collator, found = PairCollator(), np.zeros((len(rows), 2), dtype=np.float32)
    longest = [len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows]
    order = sorted(range(len(rows)), key=lambda i: -longest[i])
    model.eval()
    attach_engine(model)
    progress = tqdm(total=len(rows), desc="reference", unit="pair", disable=not sys.stderr.isatty())
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_A_BATCH // (2 * longest[order[start]]))
        taken = order[start : start + size]
        batch = {k: v.to(model.device) for k, v in collator([rows[i] for i in taken]).items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            sums, _ = completion_logps(model, **batch)
        found[taken] = sums.float().view(2, -1).T.cpu().numpy()
        progress.update(len(taken))
        start += size
    progress.close()
    return found


def compute(folder: Path) -> None:
    """Fills a reference folder; does nothing when it is filled.

    Raises:
        InputFault: the folder, its pairs or its model are missing.
    """
    if (folder / "reference.json").is_file():
        return
    if not (folder / "unit.json").is_file():
        raise InputFault(
            f"{folder / 'unit.json'} is missing; it is written by: python -m experiments.run MANIFEST"
        )
    unit = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    root = folder.resolve().parents[1]
    rows = read_rows(root / unit["data"], PAIR_IDS)
    location, revision = _location(unit, root)
    model = load_model(location, unit["model"], revision)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    found = reference_logps(model, rows, unit["precision"])
    temporary = folder / f".logps.{os.getpid()}.npy"
    np.save(temporary, found)
    temporary.replace(folder / "logps.npy")
    facts = {
        "schema": 1,
        "pairs": len(rows),
        "data_sha256": rows_digest(rows),
        "model_sha256": weights_digest(model),
    }
    write_json(folder / "reference.json", facts | {"precision": unit["precision"]})


def _location(unit: Mapping[str, Any], root: Path) -> tuple[str, str | None]:
    if unit["parent"]:
        return model_location(root / unit["parent"])
    if unit["model"]["from_scratch"]:
        raise InputFault(
            "a model from scratch is no reference before it is trained; give the method a 'from'"
        )
    return unit["model"]["id"], unit["model"]["revision"]


def load_reference(folder: Path, rows: Sequence[Row], model: nn.Module) -> np.ndarray[Any, Any]:
    """The log-probabilities of a reference folder, after checking that they are of these rows and this model.

    Args:
        folder: a reference folder.
        rows: the training pairs.
        model: the policy before its first step, whose weights are the reference's.

    Raises:
        InputFault: other pairs or other weights.
    """
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    found = np.load(folder / "logps.npy")
    remedy = f"delete {folder} and run again"
    if found.shape != (len(rows), 2) or facts["data_sha256"] != rows_digest(list(rows)):
        raise InputFault(f"{folder}: the reference log-probabilities were computed for other pairs; {remedy}")
    if facts["model_sha256"] != weights_digest(model):
        raise InputFault(
            f"{folder}: the reference log-probabilities come from other weights than training starts from; "
            f"{remedy}"
        )
    return np.asarray(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder

    def work() -> int:
        compute(folder)
        return 0

    return told(work)


if __name__ == "__main__":
    sys.exit(main())
