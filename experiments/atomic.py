"""Files that a reader sees whole or not at all, and errors that say what to do about the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from po.files import write_whole

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, then start again",
    errno.EDQUOT: "the disk quota is used up; free some space, then start again",
    errno.EFBIG: "the file would exceed the size limit of this process (ulimit -f)",
    errno.EROFS: "the file system is read-only; use a folder on another one",
    errno.EACCES: "no permission to write there; check the owner and the mode of the folder",
    errno.EPERM: "not permitted there (write-protected, or without hard links); use another folder",
    errno.EOPNOTSUPP: "the file system has no hard links; use a folder on another one",
    errno.ENOENT: "the folder is not there; it was deleted or moved while in use",
    errno.ESTALE: "the folder is not there any more; it was deleted or moved on the file server",
}


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def explained(error: OSError, action: str) -> OSError:
    """An error of the same class whose message says what failed, where, and what to do.

    Args:
        error: what the system reported.
        action: what was tried, with the path, to follow "cannot" (``"write runs/a/status.json"``).
    """
    remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return OSError(error.errno, f"cannot {action}: {remedy}")


def disk_remedy(error: BaseException) -> str | None:
    """What to do where a stage failed because nothing more can be written; None for other errors.

    Args:
        error: of a stage. Libraries in other languages raise errors of their own, with the system's number
            in their text.
    """
    for number in _DISK:
        told = isinstance(error, OSError) and error.errno == number
        if told or re.search(rf"\bos error {number}\b", str(error)):
            return _REMEDIES[number]
    return None


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file by way of another name in the same folder, flushed to the disk, then renamed.

    Raises:
        OSError: with a remedy in its message; the old content, if any, is untouched.
    """
    try:
        write_whole(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise explained(error, f"write {path}") from error


def write_durably(path: Path, text: str) -> None:
    """Writes a new file and returns when it is on the disk. For names that nobody reads yet.

    Raises:
        FileExistsError: the name is taken.
    """
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes one JSON object atomically.

    Raises:
        ValueError: the document holds NaN or an infinity, which JSON has no words for.
        OSError: with a remedy in its message.
    """
    write_text(path, json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged; the message names it.
    """
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError alike
        raise ValueError(
            f"{path}: not a whole JSON document ({error}); delete the file and run its stage again"
        ) from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: holds a JSON {type(document).__name__}; an object was expected")
    return document


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
