"""Remove folders of an experiment that its newest plan does not name any more.

    python -m experiments.clean runs/demo --orphans            # lists them, removes nothing
    python -m experiments.clean runs/demo --orphans --yes

A folder is an orphan when a change of the manifest gave its content another hash. Folders that SLURM's queue
works in or reads are kept; so is all that does not end in a hash, and nothing is followed or removed through
a symbolic link. Nothing is removed while a process holds any stage of the experiment, for what it reads is
not known, or while it cannot be known what the queue holds.

Reads   RUNS/plan.json, and the folders in RUNS/cells, data, pairs, reference
Exit    0, or 1 if something could not be removed or nothing may be now, or 2 for wrong usage or no plan
"""

import argparse
import contextlib
import os
import re
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.atomic import explained
from experiments.claim import Claim, ClaimHeldError, claim_state
from experiments.identity import SHORT
from experiments.recorded_plan import RecordedPlan, read_plan
from experiments.status_table import duration
from experiments.submissions import Queue, read_queue

FAILED, USAGE = 1, 2
SECTIONS = ("cells", "data", "pairs", "reference")
_MADE = re.compile(rf".+--(?P<hash>[0-9a-f]{{{SHORT}}})")
# What an interrupted removal has left. Without "--", so that nobody takes it for the folder of that hash.
_REMOVING = re.compile(r"\.removing-[0-9a-f]{32}")
_STAGE_FILE = re.compile(
    r"(?:stage|status)\.(?P<json>[a-z][a-z0-9_-]*)\.json|claim\.(?P<claim>[a-z][a-z0-9_-]*)"
)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A folder that no plan names.

    Attributes:
        n_bytes: of all files in it.
        age_s: seconds since something in it was written.
        kept: why it is not removed; empty if it may be.
    """

    folder: Path
    n_bytes: int
    age_s: float
    kept: str


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        if not options.orphans:
            raise ValueError("say what to clean: --orphans, the folders that the newest plan does not name")
        plan = read_plan(options.runs)
        queue = read_queue(options.runs)
        orphans = list(find_orphans(plan, _queued(queue)))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    for line in _describe(orphans):
        print(line)  # noqa: T201 the command's output
    loose = [orphan for orphan in orphans if not orphan.kept]
    if not loose:
        return 0
    if why_not := _refusal(options.runs, queue):
        sys.stderr.write(f"{why_not}; nothing is removed\n")
        return FAILED if options.yes else 0
    if not options.yes:
        print("nothing was removed; --yes removes them")  # noqa: T201 the command's output
        return 0
    n_failed = sum(not _removed(orphan.folder) for orphan in loose)
    print(f"removed {len(loose) - n_failed} folders")  # noqa: T201 the command's output
    return FAILED if n_failed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.clean",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of an experiment, such as runs/demo")
    parser.add_argument("--orphans", action="store_true", help="folders that the newest plan does not name")
    parser.add_argument("--yes", action="store_true", help="remove them; without this they are only listed")
    return parser.parse_args(argv)


def _refusal(root: Path, queue: Queue) -> str:
    """Why nothing may be removed now; empty if orphans may be."""
    if not queue.answered:
        return "SLURM's queue could not be asked, and jobs of this experiment may read what is left over"
    if queue.faults:
        return f"{queue.faults[0]}; if its jobs have ended, delete the submission's folder"
    for folder in (root, *(folder for section in SECTIONS for folder in _folders(root / section))):
        if user := _user(folder):
            return f"{folder}: {user}, and may read what is left over"
    return ""


def find_orphans(plan: RecordedPlan, queued: Mapping[str, str]) -> Iterator[Orphan]:
    """The folders below the plan's root that it does not name, by their hashes.

    Args:
        plan: the newest.
        queued: folders, relative to the root, that SLURM's queue works in or reads, and which of both.

    Raises:
        ValueError: the plan names no folder at all, so it cannot tell what is an orphan.
    """
    named = {(folder.partition("/")[0], folder.rpartition("--")[2]) for folder, _ in plan.index}
    if not named:
        raise ValueError(f"{plan.root / 'plan.json'} names no folder; nothing can be told to be left over")
    for section in SECTIONS:
        for folder in _folders(plan.root / section):
            made = _MADE.fullmatch(folder.name)
            if not (_REMOVING.fullmatch(folder.name) or (made and (section, made["hash"]) not in named)):
                continue
            kept = queued.get(f"{section}/{folder.name}") or _user(folder)
            n_bytes, newest = _measured(folder)
            yield Orphan(folder, n_bytes, max(0.0, time.time() - newest), kept)


def _folders(section: Path) -> list[Path]:
    """The real folders in a section that is a real folder."""
    if section.is_symlink() or not section.is_dir():
        return []
    with os.scandir(section) as entries:
        return sorted(section / entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _queued(queue: Queue) -> dict[str, str]:
    if not queue.answered:
        return {}  # all that was ever submitted: nothing is removed then anyway
    elements = (*queue.elements, *queue.stuck)
    read = {folder: "SLURM's queue holds work that reads it" for e in elements for folder in e.needs}
    return read | {folder: "SLURM's queue holds work for it" for e in elements for folder, _ in e.stages}


def _stages(folder: Path) -> list[str]:
    """The stages that a folder has files of."""
    found = (_STAGE_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted({match["json"] or match["claim"] for match in found if match})


def _user(folder: Path) -> str:
    """Who works in a folder, or might; empty if nobody does."""
    for stage in _stages(folder):
        state = claim_state(folder, stage)
        if state.kind == "held":
            return f"{stage} runs: {state.owner or 'an owner that cannot be read'}"
    return ""


def _measured(folder: Path) -> tuple[int, float]:
    """Bytes of the files in a folder, and when the newest was written (Unix seconds)."""
    n_bytes, newest = 0, folder.lstat().st_mtime
    for above, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # somebody is at work there
                about = os.lstat(os.path.join(above, name))
                n_bytes += about.st_size if stat.S_ISREG(about.st_mode) else 0
                newest = max(newest, about.st_mtime)
    return n_bytes, newest


def _describe(orphans: Sequence[Orphan]) -> list[str]:
    if not orphans:
        return ["no orphans: the newest plan names every folder"]
    lines = []
    for orphan in orphans:
        kept = f"  kept: {orphan.kept}" if orphan.kept else ""
        lines.append(f"{_size(orphan.n_bytes):>9}  {duration(orphan.age_s):>10} old  {orphan.folder}{kept}")
    loose = [orphan for orphan in orphans if not orphan.kept]
    total = _size(sum(orphan.n_bytes for orphan in loose))
    return [*lines, f"{total:>9}  in {len(loose)} folders that can go"]


def _size(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _removed(folder: Path) -> bool:
    """Takes the folder away from everybody, then removes it; says so if that fails."""
    away = folder.with_name(f".removing-{uuid.uuid4().hex}")
    try:
        with contextlib.ExitStack() as claims:
            # whoever would begin a stage now finds it held, and from the renaming on finds no folder
            for stage in _stages(folder):
                claims.enter_context(Claim(folder, stage, on_lost=_nothing))
            folder.rename(away)
        shutil.rmtree(away)
    except ClaimHeldError as error:
        sys.stderr.write(f"{folder} is kept: {error}\n")
        return False
    except OSError as error:
        sys.stderr.write(f"{explained(error, f'remove {folder}')}\n")
        return False
    return True


def _nothing(claim: Claim) -> None:
    """The claim is gone because its folder is; that is no reason to end this process."""


if __name__ == "__main__":
    sys.exit(main())
