"""A small manifest as data, changed by dotted names, for the tests that plan studies."""

import copy
import json
from pathlib import Path
from typing import Any

from experiments.grid import Grid, expand_grid
from experiments.loading import Loaded, load
from experiments.manifest import read_manifest
from experiments.problems import ManifestError

SMALL: dict[str, Any] = {
    "name": "small",
    "models": {
        "tiny": {"from_scratch": {"architecture": "llama", "hidden_size": 64, "layers": 2, "heads": 2}}
    },
    "tasks": {
        "numbers": {
            "type": "translation",
            "target_lang": "de",
            "data": {"generator": "numbers", "seed": 3, "sft": 40, "train": 20, "dev": 8, "test": 12},
            "prompt": "{{ source }}\n",
            "max_prompt_length": 64,
            "max_completion_length": 48,
            "pairs": {"from": "sft", "samples": 3},
            "generation": {"max_new_tokens": 32, "batch_size": 8},
            "metrics": ["chrf"],
        }
    },
    "methods": {"sft": {"params": {"learning_rate": 1e-3}}, "dpo": {"from": "sft", "params": {"beta": 0.1}}},
    "seeds": [1, 2],
    "training": {"global_batch_size": 8, "per_device_batch_size": 4},
}
REMOVED = object()


def changed(**changes: Any) -> dict[str, Any]:
    """The small manifest with other values; ``methods__dpo__params`` stands for ``methods.dpo.params``."""
    data = copy.deepcopy(SMALL)
    for dotted, value in changes.items():
        *above, last = dotted.split("__")
        at = data
        for key in above:
            at = at.setdefault(key, {})
        if value is REMOVED:
            del at[last]
        else:
            at[last] = value
    return data


def write(folder: Path, data: Any, name: str = "study.yaml") -> Path:
    """A manifest file: of data, or of YAML text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)  # JSON is YAML
    path.write_text(text, encoding="utf-8")
    return path


def grid(folder: Path, **changes: Any) -> Grid:
    return expand_grid(read_manifest(write(folder, changed(**changes))))


def loaded(folder: Path, **changes: Any) -> Loaded:
    return load(write(folder, changed(**changes)), folder / "runs")


def faults(folder: Path, data: Any) -> list[str]:
    """``place: message`` of every fault of a manifest; none if it can be planned."""
    try:
        load(write(folder, data), folder / "runs")
    except ManifestError as error:
        return [f"{problem.place}: {problem.message}" for problem in error.problems]
    return []


def only_fault(folder: Path, **changes: Any) -> str:
    """The single fault of the changed manifest."""
    found = faults(folder, changed(**changes))
    assert len(found) == 1, found
    return found[0]
