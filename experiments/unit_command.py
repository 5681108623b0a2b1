"""What the commands that fill one folder by its ``unit.json`` have in common."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.atomic import read_json
from po.faults import BAD_INPUT, InputFault, told


def run_on_folder(
    argv: Sequence[str] | None, *, prog: str, text: str, work: Callable[[Path, dict[str, Any]], None]
) -> int:
    """Parses the folder's path, reads its ``unit.json`` and does the work.

    Args:
        argv: arguments after the program's name; None for those of the process.
        prog: the command, as a user types it.
        text: its help.
        work: fills a folder, as its ``unit.json`` says.

    Returns:
        0, or 65 for data or settings that cannot be used. Then the last line on stderr says what to do.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args(argv).folder.resolve()
    return told(lambda: _worked(folder, work))


def _worked(folder: Path, work: Callable[[Path, dict[str, Any]], None]) -> int:
    path = folder / "unit.json"
    if not path.is_file():
        raise InputFault(f"{path} is missing; it is written by: python -m experiments.run MANIFEST")
    try:
        unit = read_json(path)
    except ValueError as error:
        raise InputFault(str(error)) from None
    try:
        work(folder, unit)
    except (ValueError, FileNotFoundError) as error:
        traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    return 0
