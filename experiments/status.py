"""Show how far an experiment is, from its files alone; SLURM's queue is asked where it can be.

    python -m experiments.status runs/demo
    python -m experiments.status runs/demo runs/other --watch    # every ten seconds, until all is done
    python -m experiments.status runs/demo --json                # one JSON document a line and experiment

    done         with all its files              failed     all its attempts are used up
    running      a process holds its claim       blocked    something that it needs failed or was cancelled
    queued       SLURM's queue holds it          lost       its process died without a word
    waiting      something it needs is not done  stale      done or begun for other inputs
    interrupted  stopped at a safe point         damaged    its status cannot be read

Exit    0, or 1 if a stage failed, is lost, blocked or damaged, or an element of SLURM ended without
        beginning any, or 2 if a folder holds no experiment;
        130 when the watch was ended with Ctrl-C
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.outlook import look_ahead, projection_of
from experiments.overview import WRONG, Overview, survey
from experiments.recorded_plan import read_plan
from experiments.status_table import as_json, describe
from experiments.submissions import read_queue
from po.piped import piped

INTERRUPTED = 130
NO_EXPERIMENT = 2
_WATCH_S = 10.0
_HOME, _END_OF_LINE, _REST = "\033[H", "\033[K", "\033[J"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        if options.watch is None:
            overviews, text = _look(options)
            sys.stdout.write(text)
        else:
            overviews = _watch(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as of: status ... | head; no fault of the folder's
        raise
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return NO_EXPERIMENT
    wrong = any(row.state in WRONG for overview in overviews for row in overview.rows)
    return int(wrong or any(overview.ended_unbegun for overview in overviews))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="folders of experiments, such as runs/demo"
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_WATCH_S,
        metavar="SECONDS",
        help="show it again every so many seconds (10), until all is done or Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="for programs: one JSON document a line")
    parser.add_argument("--all", action="store_true", help="name every stage, not only ten of each state")
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    """A time for argparse, which names the option and this function's message."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds; folders stand before the options"
        )
    return seconds


def _look(options: argparse.Namespace) -> tuple[list[Overview], str]:
    """All experiments at this moment, and the text about them."""
    overviews, blocks = [], []
    for root in options.runs:
        overview = survey(read_plan(root), read_queue(root))
        seconds_of = projection_of(overview)
        outlook = look_ahead(overview, seconds_of)
        overviews.append(overview)
        if options.json:
            blocks.append(json.dumps(as_json(overview, outlook), ensure_ascii=False) + "\n")
        else:
            lines = describe(overview, outlook, seconds_of, everything=options.all)
            blocks.append("\n".join(lines) + "\n")
    return overviews, ("" if options.json else "\n").join(blocks)


def _watch(options: argparse.Namespace) -> list[Overview]:
    """Shows it again and again, on a terminal in place, and returns when all is done."""
    in_place = sys.stdout.isatty() and not options.json
    while True:
        overviews, text = _look(options)
        if in_place:
            _redraw(text, options.watch)
        else:
            sys.stdout.write(text if options.json else f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
        sys.stdout.flush()
        if all(overview.is_done for overview in overviews):
            return overviews
        time.sleep(options.watch)


def _redraw(text: str, every_s: float) -> None:
    """Writes over what stands there, so that nothing flickers; lines that do not fit are cut or left out."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    lines = [f"{time.strftime('%H:%M:%S')}, every {every_s:g} s; Ctrl-C ends this", "", *text.splitlines()]
    if len(lines) > height - 1:
        lines = [*lines[: height - 2], f"... {len(lines) - height + 2} more lines"]
    sys.stdout.write(_HOME + "".join(f"{line[: width - 1]}{_END_OF_LINE}\n" for line in lines) + _REST)


if __name__ == "__main__":
    sys.exit(piped(main))
