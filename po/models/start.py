"""Where a cell's training starts: which weights, and which adapters beside them.

A cell publishes whole weights, whatever it was trained with, so that others can start from them. With an
adapter whose reference is ``off`` they do, and add a new one. With ``copy`` and ``merged`` they go on with
the adapter of the cell above, beside the weights that it was trained beside: nothing is merged on the way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from po.faults import InputFault
from po.models.adapters import with_saved_adapter
from po.models.loading import load_model, model_location
from po.models.merging import ADAPTER


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        location: folder or hub id of whole weights.
        revision: commit of a hub id.
        adapter: folder of the adapters that are trained on; None for new ones, or none.
    """

    location: str
    revision: str | None
    adapter: Path | None = None


def start_of(spec: Mapping[str, Any], parent: Path | None) -> Start:
    """Where the weights are that a cell starts from.

    Args:
        spec: the manifest's model entry, which is not from scratch or has a parent.
        parent: folder of the cell above; None for the model as it is.

    Raises:
        InputFault: the cell above is not trained.
    """
    if parent is None:
        return Start(spec["id"], spec["revision"])
    location, revision = model_location(parent)
    adapter = spec.get("adapter")
    saved = Path(location) / ADAPTER
    if not adapter or adapter["reference"] == "off" or not saved.is_dir():
        return Start(location, revision)
    above = start_of(spec, _parent_of(parent))
    return Start(above.location, above.revision, saved)


def load_start(start: Start, spec: Mapping[str, Any]) -> Any:
    """The weights, with the adapters that are trained on if there are any.

    Raises:
        InputFault: the model is none that writes texts, or cannot be quantized here.
        OSError: there is no model at that place, or the hub cannot be reached.
    """
    return continued(load_model(start.location, spec, start.revision), start)


def continued(model: Any, start: Start) -> Any:
    """The model with the adapters that are trained on, or as it is."""
    return model if start.adapter is None else with_saved_adapter(model, start.adapter)


def load_plain(start: Start, spec: Mapping[str, Any]) -> Any:
    """The weights alone, in float32 and not quantized."""
    return load_model(start.location, {**spec, "dtype": "float32", "quantization": None}, start.revision)


def _parent_of(cell: Path) -> Path | None:
    path = cell / "cell.json"
    if not path.is_file():
        raise InputFault(
            f"{path} is missing; it says what {cell.name} was trained beside; run experiments.run"
        )
    parent = json.loads(path.read_text(encoding="utf-8"))["parent"]
    return None if parent is None else cell.resolve().parents[1] / parent
