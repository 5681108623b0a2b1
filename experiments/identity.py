"""Content hashes and names: what a cell is, written so that equal things look equal.

A hash is the SHA-256 of canonical JSON: sorted keys, no blanks, numbers in their shortest round-trip form
(``5e-7``, ``5.0e-07`` and ``0.0000005`` are one number, and ``1.0`` is ``1``).
"""

import hashlib
import json
import math
import re
import unicodedata
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
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
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
        return content_hash([[str(p.relative_to(path)), file_digest(p)] for p in inside])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def number_text(value: Any) -> str:
    """A value as it stands in a cell's name: ``0.1``, ``5e-7``, ``true``, text as it is."""
    value = canonical(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = repr(value)
        mantissa, _, exponent = text.partition("e")
        if not exponent and abs(value) < 1e-3:
            mantissa, _, exponent = f"{value:.16e}".partition("e")
            mantissa = repr(float(mantissa))
        mantissa = mantissa.removesuffix(".0")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return str(value)


def safe_name(text: str) -> str:
    """Text that any file system takes as part of a name: ASCII letters, digits, ``.``, ``_``, ``-``, at most 120 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-") or "cell"
    return plain[:_MAX_NAME]


def folder_name(name: str, digest: str) -> str:
    """``<name>--<first ten digits of the hash>``."""
    return f"{safe_name(name)}--{digest[:SHORT]}"


def find_folder(parent: Path, name: str, digest: str) -> Path:
    """The folder of this hash below ``parent``, whatever its name; a new name if there is none yet.

    A folder keeps the name it was made with, so widening a grid (which adds axes to names) renames nothing.
    """
    for found in sorted(parent.glob(f"*--{digest[:SHORT]}")):
        return found
    return parent / folder_name(name, digest)
