"""Content hashes and names: equal things look equal.

A hash is the SHA-256 of canonical JSON: sorted keys, no blanks, numbers in their shortest round-trip form
(``5e-7``, ``5.0e-07`` and ``0.0000005`` are one number, and ``1.0`` is ``1``).
"""

import hashlib
import json
import math
import re
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

SCHEMA = 1
SHORT = 10  # hexadecimal digits of a hash in a folder's name
_MAX_NAME = 120


def canonical(value: Any) -> Any:
    """The value with every number in one form; raises ValueError for NaN, infinity and unknown types."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be part of an experiment's identity")
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    raise ValueError(f"{type(value).__name__} cannot be part of an experiment's identity")


def content_hash(value: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the value's canonical JSON."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of the sorted names and digests of all files below a folder."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return content_hash([[p.relative_to(path).as_posix(), file_digest(p)] for p in inside])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def number_text(value: Any) -> str:
    """A value as it stands in a cell's name: ``0.1``, ``5e-7``, ``true``, text as it is."""
    value = canonical(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and abs(value) < 1e-3:
        # by its shortest decimal digits: arithmetic would turn 3e-4 into 2.9999999999999997e-4
        sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        first, *rest = map(str, digits)
        mantissa = f"{first}.{''.join(rest)}" if rest else first
        return f"{'-' * sign}{mantissa}e{int(exponent) + len(rest)}"
    return str(value)


def safe_name(text: str) -> str:
    """Text that any file system takes as a name: ASCII letters, digits, ``. _ -``, at most 120 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-") or "cell"
    return plain[:_MAX_NAME]


def folder_name(name: str, digest: str) -> str:
    """``<name>--<first ten digits of the hash>``."""
    return f"{safe_name(name)}--{digest[:SHORT]}"


def folders_by_hash(parent: Path) -> dict[str, Path]:
    """The folders below ``parent`` that :func:`folder_name` named, by the ten digits of their hashes.

    A folder is found by its hash and keeps the name it was made with, so widening a grid (which adds axes to
    names) renames nothing.
    """
    if not parent.is_dir():
        return {}
    found = (path for path in sorted(parent.iterdir(), reverse=True) if "--" in path.name)
    return {path.name.rpartition("--")[2]: path for path in found}
