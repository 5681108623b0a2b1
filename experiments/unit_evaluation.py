"""What decides a cell's outputs and scores once it is trained: decoding, metrics, post-processing; as hashed.

What came later than the first experiments enters a hash or a document only where it is used.
"""

import functools
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.generation.decoding import Decoding
from eval.metrics import default_metrics, expand_sets
from experiments.check_metrics import expanded
from experiments.check_tasks import FILES
from experiments.grid import Cell
from experiments.locations import expand
from experiments.schema import Manifest
from experiments.schema_tasks import Generation
from experiments.unit_identity import Contents

_SMALL = 64 * 2**20  # bytes; what is larger takes seconds to read at every plan, and is in the signature


def task_metrics(manifest: Manifest, task: str) -> list[str]:
    """Names of a task's metrics, sets resolved: the manifest's, or the default of its type."""
    entry = manifest.tasks[task]
    if entry.metrics is None:
        return list(default_metrics(entry.type, entry.target_lang))
    return list(expand_sets(entry.metrics))


def used_definitions(manifest: Manifest, names: Iterable[str]) -> dict[str, Any]:
    """``{"metric_definitions": ...}`` with what the manifest defines of these metrics; empty if nothing."""
    found = {name: expanded(manifest.metrics[name]) for name in names if name in manifest.metrics}
    return {"metric_definitions": found} if found else {}


def generation_document(cell: Cell) -> dict[str, Any]:
    """Backend and decoding settings; outputs of others have no settings that anybody knew."""
    return {"backend": FILES} if cell.outputs else cell.generation.model_dump()


def decoding_content(cell: Cell) -> dict[str, Any]:
    """What of the settings decides the outputs."""
    if cell.outputs:
        return {"backend": FILES}
    return _decoding(cell.generation)


@functools.cache
def _decoding(generation: Generation) -> dict[str, Any]:
    """Thousands of cells decode alike; nobody changes what this returns."""
    return Decoding.from_mapping(generation.model_dump()).canonical() | {"backend": generation.backend}


def score_content(manifest: Manifest, task: str, generate_hash: str, contents: Contents) -> dict[str, Any]:
    """What changes the scores of outputs with this hash, as far as it is known here.

    Versions of other libraries are not in it: they stand in the signatures, which the report compares.
    """
    metrics = task_metrics(manifest, task)
    content = {"generate": generate_hash, "metrics": sorted(metrics), "sacrebleu": _version("sacrebleu")}
    choices = scoring_choices(manifest, task)
    named = _local_files(choices.get("metric_definitions", {}), contents)
    return content | choices | ({"files": named} if named else {})


def _local_files(definitions: Mapping[str, Mapping[str, Any]], contents: Contents) -> dict[str, str]:
    """Small files that definitions name (a script, a list of texts): place -> digest; not checkpoints."""
    values = {f"{name}.{key}": value for name, each in definitions.items() for key, value in each.items()}
    paths = {place: Path(value) for place, value in values.items() if isinstance(value, str) and value}
    small = {p: path for p, path in paths.items() if path.is_file() and path.stat().st_size <= _SMALL}
    return {place: contents.digest(path) for place, path in small.items()}


def scoring_choices(manifest: Manifest, task: str) -> dict[str, Any]:
    """Definitions of metrics and post-processing, where the task has any."""
    names = manifest.tasks[task].postprocess
    choices = used_definitions(manifest, task_metrics(manifest, task))
    return choices | ({"postprocess": list(names)} if names else {})


def outputs_document(cell: Cell, tests: Iterable[str], contents: Contents) -> dict[str, Mapping[str, str]]:
    """Test set -> path and digest of the file that its outputs are in."""
    paths = {name: expand(cell.outputs[name]) for name in tests}
    return {name: {"path": path, "sha256": contents.digest(Path(path))} for name, path in paths.items()}


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)
