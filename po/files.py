"""Files that a reader sees whole or not at all, and that are on the disk when a later one says so."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

# po.references, po.training and processes that only plan read this: what is heavy stays out


def write_whole(path: Path, save: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file under another name first, flushed to the disk, then renamed.

    The other name is random, since processes of two containers may have one id. A write that fails removes
    it; one that is killed leaves it, ``.<name>.<16 hexadecimal digits>.tmp``, and nobody reads it.

    Args:
        path: the file, which is replaced where it exists.
        save: writes its content.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document as ``write_whole`` does."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    write_whole(path, lambda file: file.write(text.encode()))


def sync_tree(folder: Path) -> None:
    """Returns when a folder with all that is in it is on the disk, under its name.

    To be called before a mark that says that the folder is complete: after a power cut the mark could
    otherwise stand over files that are empty.

    Raises:
        OSError: something could not be written.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
