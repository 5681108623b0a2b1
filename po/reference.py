"""Reference log-probabilities: computed once per (model, data, precision), checked by content when they are loaded.

    python -m po.reference runs/NAME/reference/FOLDER

Reads   FOLDER/unit.json, the pairs and the parent's model that it names
Writes  FOLDER/logps.npy (pairs x [chosen, rejected], summed, in nats), FOLDER/reference.json (digests, lengths' rule)
Exit    0 done or already done
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from po.collate import PairCollator
from po.logps import attach_engine, completion_logps
from po.models import load_model, model_location, write_json
from po.rows import Row, read_rows, rows_digest

_TOKENS_A_BATCH = 4096


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and persistent buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def reference_logps(model: Any, rows: Sequence[Row], pad_token_id: int, precision: str) -> np.ndarray[Any, Any]:
    """Summed log-probabilities of chosen and rejected completions, in nats, float32, shape (pairs, 2).

    Rows are taken by length to keep padding small; the result is in the order of ``rows``.
    """
    collator, found = PairCollator(pad_token_id), np.zeros((len(rows), 2), dtype=np.float32)
    longest = [len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows]
    order = sorted(range(len(rows)), key=lambda i: longest[i])
    model.eval()
    attach_engine(model)
    progress = tqdm(total=len(rows), desc="reference", unit="pair", disable=not sys.stderr.isatty())
    while order:
        size = max(1, _TOKENS_A_BATCH // (2 * longest[order[0]]))
        chosen, order = order[:size], order[size:]
        batch = {k: v.to(model.device) for k, v in collator([rows[i] for i in chosen]).items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            sums, _ = completion_logps(model, **batch)
        found[chosen] = sums.float().view(2, -1).T.cpu().numpy()
        progress.update(len(chosen))
    return found


def compute(folder: Path) -> None:
    """Fills a reference folder; does nothing when it is filled."""
    if (folder / "reference.json").is_file():
        return
    unit = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    root = folder.resolve().parents[1]
    rows = read_rows(root / unit["data"])
    spec = unit["model"]
    location, revision = model_location(root / unit["parent"]) if unit["parent"] else (spec["id"], spec["revision"])
    model = load_model(location, spec, revision)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    found = reference_logps(model, rows, 0, unit["precision"])
    temporary = folder / f".logps.{os.getpid()}.npy"
    np.save(temporary, found)
    temporary.replace(folder / "logps.npy")
    facts = {"schema": 1, "pairs": len(rows), "data_sha256": rows_digest(rows), "model_sha256": weights_digest(model), "rule": "sum"}
    write_json(folder / "reference.json", facts | {"precision": unit["precision"]})


def load_reference(folder: Path, rows: Sequence[Row], model: nn.Module) -> np.ndarray[Any, Any]:
    """The log-probabilities of a reference folder, after checking that they belong to these rows and this model.

    Args:
        folder: a reference folder.
        rows: the training pairs.
        model: the policy before its first step, whose weights are the reference's.

    Raises:
        ValueError: other pairs or other weights.
    """
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    found = np.load(folder / "logps.npy", mmap_mode="r")
    remedy = f"delete {folder} and run again"
    if found.shape != (len(rows), 2) or facts["data_sha256"] != rows_digest(list(rows)):
        raise ValueError(f"{folder}: the reference log-probabilities were computed for other pairs; {remedy}")
    if facts["model_sha256"] != weights_digest(model):
        raise ValueError(f"{folder}: the reference log-probabilities come from other weights than this cell starts from; {remedy}")
    return np.asarray(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    compute(parser.parse_args(argv).folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
