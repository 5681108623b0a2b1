"""Reference log-probabilities: computed once per (model, data, precision), checked by content on loading.

    python -m po.reference runs/NAME/reference/FOLDER

Reads   FOLDER/unit.json, the pairs and the parent's model that it names
Writes  FOLDER/logps.npy (rows x completions, summed, in nats) and other values that a method needs,
        FOLDER/reference.json (digests)
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

from po.faults import InputFault, told
from po.models.loading import write_json
from po.models.quantize import is_quantized
from po.models.start import Start, load_start, start_of
from po.references.mismatch import with_mismatched
from po.references.values import reference_values, with_values
from po.rows import Row, read_training_rows, rows_digest


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and persistent buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    kinds = tuple(unit.get("kinds", ("logps",)))
    form = unit.get("form", "unpaired")
    rows = read_training_rows(root / unit["data"], form)
    if "mismatched_logps" in kinds:
        rows = with_mismatched(rows)
    model = load_start(_start(unit, root), unit["model"])
    if not is_quantized(model):  # which is where it shall be
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    for kind, values in reference_values(model, rows, unit["precision"], kinds, form).items():
        temporary = folder / f".{kind}.{os.getpid()}.npy"
        np.save(temporary, values)
        temporary.replace(folder / f"{kind}.npy")
    facts = {
        "schema": 1,
        "rows": len(rows),
        "kinds": list(kinds),
        "form": form,
        "data_sha256": rows_digest(rows),
        "model_sha256": weights_digest(model),
    }
    write_json(folder / "reference.json", facts | {"precision": unit["precision"]})


def _start(unit: Mapping[str, Any], root: Path) -> Start:
    if unit["model"].get("from_scratch") and not unit["parent"]:
        raise InputFault(
            "a model from scratch is no reference before it is trained; give the method a 'from'"
        )
    return start_of(unit["model"], root / unit["parent"] if unit["parent"] else None)


def load_reference(folder: Path, rows: Sequence[Row], model: nn.Module) -> list[Row]:
    """The rows with the values of a reference folder, checked to be of these rows and this model.

    Args:
        folder: a reference folder.
        rows: the training rows.
        model: the policy before its first step, whose weights are the reference's.

    Returns:
        The rows, each with ``reference_logps`` and what else is there: one value per completion.

    Raises:
        InputFault: other rows or other weights.
    """
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    found = {kind: np.load(folder / f"{kind}.npy") for kind in facts["kinds"]}
    remedy = f"delete {folder} and run again"
    if facts["data_sha256"] != rows_digest(list(rows)) or len(found["logps"]) != len(rows):
        raise InputFault(f"{folder}: the reference log-probabilities were computed for other rows; {remedy}")
    if facts["model_sha256"] != weights_digest(model):
        raise InputFault(
            f"{folder}: the reference log-probabilities come from other weights than training starts from; "
            f"{remedy}"
        )
    return with_values(rows, found, facts["form"])


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
