"""Reference log-probabilities: computed once per (model, data, precision), checked by content on loading.

    python -m po.reference runs/NAME/reference/FOLDER

Reads   FOLDER/unit.json, the pairs and the parent's model that it names
Writes  FOLDER/logps.npy (rows x completions, summed, in nats) and other values that a method needs,
        FOLDER/reference.json (what they are of, digests); until then FOLDER/parts-KEY/, so that an
        interrupted pass goes on where it stopped
Exit    0 done or already done, 65 bad data or settings
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from po.faults import InputFault, told
from po.methods.method import DataForm
from po.models.quantize import is_quantized
from po.models.start import Start, load_start, start_of
from po.references.content import Content
from po.references.lock import sole_writer
from po.references.mismatch import with_mismatched
from po.references.store import PartFiles, drop_parts, has_parts, is_filled, publish, stored_values
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

    While another process fills it, this one waits; when that one ends before its time, this one goes on
    with what it has left.

    Raises:
        InputFault: the folder, its pairs or its model are missing.
    """
    if is_filled(folder) and not has_parts(folder):
        return
    if not (folder / "unit.json").is_file():
        raise InputFault(
            f"{folder / 'unit.json'} is missing; it is written by: python -m experiments.run MANIFEST"
        )
    with sole_writer(folder):
        if not is_filled(folder):
            _fill(folder, json.loads((folder / "unit.json").read_text(encoding="utf-8")))
        drop_parts(folder)


def _fill(folder: Path, unit: Mapping[str, Any]) -> None:
    root = folder.resolve().parents[1]
    kinds = tuple(unit.get("kinds", ("logps",)))
    form = unit.get("form", "unpaired")
    rows = read_training_rows(root / unit["data"], form)
    if "mismatched_logps" in kinds:
        rows = with_mismatched(rows)
    model = load_start(_start(unit, root), unit["model"])
    content = _content(model, rows, unit["precision"], kinds, form)
    if not is_quantized(model):  # which is where it shall be
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    parts = PartFiles(folder, content.key)
    publish(folder, content, reference_values(model, rows, content.precision, kinds, form, parts=parts))


def _content(
    model: nn.Module, rows: Sequence[Row], precision: str, kinds: Sequence[str], form: str
) -> Content:
    return Content(
        model_sha256=weights_digest(model),
        dtype="+".join(sorted({str(weights.dtype).removeprefix("torch.") for weights in model.parameters()})),
        data_sha256=rows_digest(rows),
        rows=len(rows),
        form=form,
        precision=precision,
        kinds=tuple(kinds),
    )


def _start(unit: Mapping[str, Any], root: Path) -> Start:
    if unit["model"].get("from_scratch") and not unit["parent"]:
        raise InputFault(
            "a model from scratch is no reference before it is trained; give the method a 'from'"
        )
    return start_of(unit["model"], root / unit["parent"] if unit["parent"] else None)


def load_reference(
    folder: Path,
    rows: Sequence[Row],
    model: nn.Module,
    precision: str,
    kinds: Sequence[str] = ("logps",),
    form: DataForm = "unpaired",
) -> list[Row]:
    """The rows with the values of a reference folder, checked to be those that this training wants.

    Args:
        folder: a reference folder.
        rows: the training rows.
        model: the policy before its first step, whose weights are the reference's.
        precision: of the training, ``bf16`` or ``fp32``.
        kinds: which values; the folder may have more.
        form: ``ranked`` for lists of candidates; ``unpaired`` for pairs and single completions.

    Returns:
        The rows, each with ``reference_logps`` and what else is asked for: one value per completion, and of
        ``reference_token_logps`` one per token, mapped into memory.

    Raises:
        InputFault: values of other rows or weights, of another precision or rule, too few or damaged ones.
    """
    found = stored_values(folder, _content(model, rows, precision, kinds, form))
    return with_values(rows, found, form)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m po.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder

    def work() -> int:
        compute(folder)
        return 0

    return told(work)


if __name__ == "__main__":
    sys.exit(main())
