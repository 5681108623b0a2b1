"""Reads a manifest: YAML -> checked, frozen entries; every fault is reported at once, with its line."""

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from experiments.checks import find_problems
from experiments.problems import ManifestError, Problem, nearest
from experiments.schema import Manifest
from experiments.yaml_source import Document, Location, read_document

_NOT_BOOLEANS = ("yes", "no", "on", "off", "y", "n")


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file.

    Raises:
        ManifestError: all faults with file, line, nearest known name and what to do.
    """
    return checked_manifest(_open(path))


def checked_manifest(document: Document) -> Manifest:
    """The manifest of a document.

    Raises:
        ManifestError: all faults, as for ``read_manifest``.
    """
    problems = list(document.problems)
    manifest = None
    if document.data is not None or not problems:
        try:
            manifest = Manifest.model_validate(document.data)
        except ValidationError as error:
            problems += [_problem(dict(fault)) for fault in error.errors()]
        problems += find_problems(document.data)
    if problems or manifest is None:
        raise ManifestError(document.path, located(problems, document))
    return manifest


def locate(path: Path, problems: Sequence[Problem]) -> list[Problem]:
    """Problems that were found after a manifest was read, with their lines."""
    return located(problems, _open(path))


def located(problems: Sequence[Problem], document: Document) -> list[Problem]:
    """The problems with the lines of what they speak of."""
    return [Problem(p.where, p.message, p.line or document.line(p.where)) for p in problems]


def _open(path: Path) -> Document:
    if not path.is_file():
        known = "there is no such file; manifests that come along: experiments/manifests/*.yaml"
        raise ManifestError(path, [Problem((), known)])
    try:
        return read_document(path)
    except OSError as error:
        raise ManifestError(path, [Problem((), f"cannot be read: {error.strerror}")]) from None


def _problem(fault: dict[str, Any]) -> Problem:
    where: Location = tuple(fault["loc"])
    value = fault.get("input")
    if fault["type"] == "extra_forbidden":
        return Problem(where, f"unknown key '{where[-1]}'; {nearest(where[-1], _known_keys(where[:-1]))}")
    if fault["type"] == "missing":
        return Problem(where[:-1], f"'{where[-1]}' is missing")
    if where[-1:] == ("[key]",):
        message = "a name is made of letters, digits, '_', '+' and '-', the first a letter or a digit"
        return Problem(where[:-1], f"{where[-2]!r}: {message}")
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | list) or value is None else f"{value!r}: "
    return Problem(where, shown + message + _remedy(fault["type"], value))


def _remedy(kind: str, value: Any) -> str:
    """What to write instead, where the mistake is a common one."""
    if value is None:
        return "; nothing is given here: write {} for the defaults, or leave the key out"
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _NOT_BOOLEANS:
        return "; write true or false"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "; write the number without quotes" if _is_number(value) else ""
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
