"""The files of a reference folder.

While values are computed there are parts, after that tables that are mapped into memory:

    parts-<key>/<n>     some rows' values: SHA-256 and npz; written whole, then renamed; gone at the end
    <kind>.npy          the values of all rows
    reference.json      what they are of, with digests of the files; written last
"""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from po.faults import InputFault
from po.files import write_json, write_whole
from po.references.content import Content
from po.references.layout import Array

FACTS = "reference.json"
_PARTS = "parts-"
_DIGEST = hashlib.sha256().digest_size  # bytes


class PartFiles:
    """Parts of an unfinished pass, named by all that decides their values.

    A part is taken only where its digest is right and it is of the rows that are asked for; else it counts as
    missing.

    Args:
        folder: the reference folder.
        key: of the values; parts of other keys are not seen.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / f"{_PARTS}{key[:16]}"

    def read(self, number: int, rows: Sequence[int]) -> dict[str, Array] | None:
        """A part's values by kind, flat; None where it is missing, torn or of something else."""
        try:
            data = (self.folder / str(number)).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        return found if np.array_equal(found.pop("rows"), rows) else None

    def write(self, number: int, rows: Sequence[int], values: Mapping[str, Array]) -> None:
        """Keeps a part; when this returns it is on the disk.

        Raises:
            OSError: it cannot be written.
        """
        arrays: dict[str, Any] = {"rows": np.array(rows), **values}

        def save(file: IO[bytes]) -> None:
            npz = io.BytesIO()
            np.savez(npz, **arrays)
            file.write(hashlib.sha256(npz.getvalue()).digest() + npz.getvalue())

        self.folder.mkdir(parents=True, exist_ok=True)
        # Without locks (po.references.lock) another process may have come to the end and removed the folder.
        with contextlib.suppress(FileNotFoundError):
            write_whole(self.folder / str(number), save)


def is_filled(folder: Path) -> bool:
    """Whether all values are there."""
    return (folder / FACTS).is_file()


def has_parts(folder: Path) -> bool:
    """Whether parts are left of a pass."""
    return any(folder.glob(f"{_PARTS}*"))


def drop_parts(folder: Path) -> None:
    """Removes the parts of all passes, once nobody needs them."""
    for parts in folder.glob(f"{_PARTS}*"):
        shutil.rmtree(parts, ignore_errors=True)


def publish(folder: Path, content: Content, found: Mapping[str, Array]) -> None:
    """Writes the values of all rows and, last, what they are of.

    Args:
        folder: the reference folder.
        content: what decides them.
        found: by kind, as ``po.references.values.reference_values`` gives them.
    """
    files = {}
    for kind, values in found.items():
        path = folder / f"{kind}.npy"
        write_whole(path, partial(np.save, arr=values))
        files[path.name] = _sha256(path)
    write_json(folder / FACTS, {"schema": 1, **content.document(), "files": files})


def stored_values(folder: Path, wanted: Content) -> dict[str, Array]:
    """The values of a folder, mapped into memory: processes of one machine share its pages.

    Args:
        folder: the reference folder.
        wanted: what they must be of.

    Returns:
        By kind, those of ``wanted`` alone; they cannot be written.

    Raises:
        InputFault: they are missing, damaged, or of something else; says what to do.
    """
    remedy = f"delete {folder} and run again"
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        files = dict(facts["files"]) if "files" in facts else {}
    except FileNotFoundError:
        raise InputFault(f"{folder / FACTS} is missing; run: python -m po.reference {folder}") from None
    except (ValueError, TypeError) as error:
        raise InputFault(f"{folder / FACTS} is damaged ({error}); {remedy}") from None
    if refusal := wanted.refusal(facts):
        raise InputFault(f"{folder}: {refusal}; {remedy}")
    return {kind: _mapped(folder / f"{kind}.npy", files.get(f"{kind}.npy"), remedy) for kind in wanted.kinds}


def _mapped(path: Path, expected: Any, remedy: str) -> Array:
    """A file's values, after its digest was compared with that in ``reference.json``."""
    try:
        if _sha256(path) != expected:
            raise InputFault(f"{path} is damaged: its digest is not that in {FACTS}; {remedy}")
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        return mapped
    except FileNotFoundError:
        raise InputFault(f"{path} is missing; {remedy}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
