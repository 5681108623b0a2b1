"""Compare every file that stages have left with the digest that was noted when they ended.

    python -m experiments.verify runs/demo                             # what has changed since
    python -m experiments.verify runs/demo --forget                    # and let the next run make it again
    python -m experiments.verify runs/demo --only method=dpo,stage=train

A run itself looks at names and sizes, which takes no time; a file that was changed in place, by a disk that
fails, say, is found here. What was made from it before the change stays: it is what it was.

Writes  with --forget removes the changed files, and status and mark of the stages that have left them
Exit    0 if all is as it was, 1 if something is damaged, 2 for wrong usage
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from experiments.atomic import sha256_file
from experiments.claim import ClaimHeldError
from experiments.recorded_plan import RecordedPlan, read_plan
from experiments.repair import forget_damaged_result
from experiments.selectors import add_only, parse_only
from experiments.stage_command import read_command
from experiments.stage_status import StageStatus, read_status, reset_status

USAGE = 2


@dataclass(frozen=True)
class Done:
    """A stage that has ended well.

    Attributes:
        folder: the cell's folder.
        label: stage and cell, for messages.
        status: its status.
        changed: files that are there and not what they were.
    """

    folder: Path
    label: str
    status: StageStatus
    changed: list[Path] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        plan = read_plan(options.runs)
        done = list(_done(plan, plan.select(parse_only(options.only))))
        damaged = _damaged(done)
        for stage in damaged if options.forget else ():
            _forget(stage)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE if isinstance(error, ValueError) else 1
    rest = ""
    if damaged:
        rest = f"; {'the next run makes' if options.forget else '--forget lets the next run make'} them again"
    print(f"{len(done)} finished stages, {len(damaged)} damaged{rest}")  # noqa: T201 the command's output
    return 1 if damaged else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of an experiment, such as runs/demo")
    parser.add_argument("--forget", action="store_true", help="let the next run make again what is damaged")
    add_only(parser)
    return parser.parse_args(argv)


def _done(plan: RecordedPlan, wanted: set[int]) -> Iterator[Done]:
    for index in sorted(wanted):
        job = plan.jobs[index]
        folder = plan.root / job["folder"]
        status = read_status(folder, job["stage"])
        if status is not None and status.state == "done" and status.stage_hash == job["stage_hash"]:
            yield Done(folder, job["label"], status)


def _damaged(done: Sequence[Done]) -> list[Done]:
    """Those with a file that is gone or has another digest; each such file is named."""
    found = []
    total = sum(measured["bytes"] for stage in done for measured in stage.status.artefacts.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as progress:
        for stage in done:
            gone = []
            for name, measured in stage.status.artefacts.items():
                path = stage.folder / name
                if not path.is_file():
                    gone.append(path)
                elif sha256_file(path) != measured["sha256"]:
                    stage.changed.append(path)
                progress.update(measured["bytes"])
            for path in gone + stage.changed:
                what = "is gone" if path in gone else "has changed"
                progress.write(f"{stage.label}: {path} {what}")
            found += [stage] if gone or stage.changed else []
    return found


def _forget(done: Done) -> None:
    stage = done.status.stage
    forget_damaged_result(done.folder, stage, read_command(done.folder, stage))
    for path in done.changed:  # a stage that goes on where it stopped would keep what is in them
        path.unlink(missing_ok=True)
    try:
        reset_status(done.folder, stage)
    except ClaimHeldError as error:
        sys.stderr.write(f"{done.label} runs ({error})\n")


if __name__ == "__main__":
    sys.exit(main())
