"""A model's weights and tokenizer, fetched while there is a network: compute nodes often have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja", "*.py"]
_COPIES = ["original/*", "onnx/*", "*/*.safetensors"]  # the same weights in other forms


def fetch_weights(model: Mapping[str, Any]) -> None:
    """Puts the files of a model on a hub into this user's cache; those that are there are left.

    Does nothing for folders and models from scratch, or where ``HF_HUB_OFFLINE`` forbids to ask.

    Args:
        model: the manifest's model entry.

    Raises:
        ValueError: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download

    if model["from_scratch"] or Path(model["id"]).is_dir() or constants.is_offline_mode():
        return
    name, revision = model["id"], model["revision"]
    try:
        snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=_COPIES)
    except OSError as error:  # all faults of the hub and of the network are
        raise ValueError(
            f"the weights of {name} cannot be fetched ({error}); where compute nodes have no network, "
            "prepare on one that has: python -m experiments.run MANIFEST --only stage=prepare"
        ) from error
