"""Reads a manifest: YAML -> checked, frozen entries; every fault is reported at once, with its line."""

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from experiments.checks import find_problems
from experiments.problems import ManifestError, Problem, nearest
from experiments.schema import Manifest
from experiments.yaml_source import Location, read_document


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file.

    Raises:
        ManifestError: all faults with file, line, nearest known name and what to do.
    """
    if not path.is_file():
        raise ManifestError(path, [Problem((), "there is no such file; manifests that come along: experiments/manifests/*.yaml")])
    document = read_document(path)
    problems = list(document.problems)
    manifest = None
    if document.data is not None:
        try:
            manifest = Manifest.model_validate(document.data)
        except ValidationError as error:
            problems += [_problem(dict(fault)) for fault in error.errors()]
        problems += find_problems(document.data)
    if problems or manifest is None:
        raise ManifestError(path, [Problem(p.where, p.message, p.line or document.line(p.where)) for p in problems])
    return manifest


def _problem(fault: dict[str, Any]) -> Problem:
    where: Location = tuple(fault["loc"])
    value = fault.get("input")
    if fault["type"] == "extra_forbidden":
        return Problem(where, f"unknown key '{where[-1]}'; {nearest(where[-1], _known_keys(where[:-1]))}")
    if fault["type"] == "missing":
        return Problem(where[:-1], f"'{where[-1]}' is missing")
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, (dict, list)) else f"{value!r}: "
    return Problem(where, shown + message)


def _known_keys(where: Location) -> list[str]:
    """The keys that the entry at a location may have, by following the models' annotations."""
    at: Any = Manifest
    for part in where:
        at = _entry_type(at)
        if isinstance(at, type) and issubclass(at, BaseModel):
            fields = {(field.alias or name): field.annotation for name, field in at.model_fields.items()}
            at = fields.get(str(part))
        else:
            at = typing.get_args(at)[-1] if typing.get_args(at) else None
    at = _entry_type(at)
    if isinstance(at, type) and issubclass(at, BaseModel):
        return [field.alias or name for name, field in at.model_fields.items()]
    return []


def _entry_type(annotation: Any) -> Any:
    """The type itself, out of Annotated and Optional."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _entry_type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inside = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _entry_type(inside[0])
    return annotation
