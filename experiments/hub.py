"""A model's weights, fetched while there is a network: compute nodes often have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
_COPIES = ["original/*", "onnx/*", "*/*.safetensors"]  # the same weights in other forms


def fetch_weights(model: Mapping[str, Any]) -> None:
    """Puts the files of a model on a hub into this user's cache; those that are there are left.

    Does nothing for folders, for models from scratch, and where the hub must not be asked (``HF_HUB_OFFLINE``).

    Args:
        model: the manifest's model entry.

    Raises:
        ValueError: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download

    name, revision = model["id"], model["revision"]
    if not name or Path(name).is_dir() or constants.is_offline_mode():
        return
    try:
        snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=_COPIES)
    except OSError as error:  # all faults of the hub and of the network are
        raise ValueError(
            f"the weights of {name} cannot be fetched ({error}); where compute nodes have no network, prepare on "
            "one that has: python -m experiments.run MANIFEST --only stage=prepare"
        ) from error
