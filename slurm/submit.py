"""Queue what is missing of a study as array jobs of SLURM.

    sbatch slurm/grid.sh experiments/manifests/demo.yaml [--only method=dpo]  # this command, in a small job
    python -m slurm.submit experiments/manifests/demo.yaml --dry-run          # every script and every command

Running the same command again is how to resume: what is done is left out, and so is what is queued or runs.
Stages that have failed for good are left out too, with all that needs them; --retry-failed tries them again.

Reads   the manifest, the site's settings (--site, $GRID_SITE or slurm/site.yaml), what is done already
Writes  runs/<name>/submissions/<id>/: the frozen lists, scripts, ids of the jobs, logs
Exit    0 all queued, or nothing left to queue; 1 SLURM would not take a job, those before it were cancelled;
        2 a fault in the manifest or the site's file, or something that it needs is not here: nothing queued;
        75 another driver is at work on the same study
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.loading import EXIT_BAD_MANIFEST, Loaded, load
from experiments.manifest import locate
from experiments.pieces import missing_pieces
from experiments.problems import ManifestError
from experiments.selectors import parse_only
from slurm import driver
from slurm.site import ROOT, settings, site_file

_DEFAULT = ROOT / "experiments" / "manifests" / "demo.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    options = _parse(argv)
    try:
        loaded = load(options.manifest, options.runs, smoke=options.smoke)
        jobs = loaded.graph.select(parse_only(options.only))
        site = site_file(options.site)
        cluster = settings(loaded.manifest.slurm, site)
        _check(loaded, driver.Request(loaded, jobs, cluster))
    except ValueError as error:  # ManifestError among them
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_MANIFEST
    sys.stderr.write(f"site: {site or 'none (no slurm/site.yaml); partition and account are the defaults'}\n")
    for warning in loaded.grid.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    choices = {"retry_failed": options.retry_failed, "ignore_queue": options.ignore_queue}
    request = driver.Request(loaded, jobs, cluster, **choices)
    # a driver that is told to end gives its claim back
    before = {n: signal.signal(n, lambda n, _: sys.exit(128 + n)) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return driver.show(request) if options.dry_run else driver.submit(request)
    except OSError as error:  # its message says what to do
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(loaded: Loaded, request: driver.Request) -> None:
    for path in (request.root, Path.cwd()):
        if "\\" in str(path) or not str(path).isprintable():
            raise ValueError(f"{str(path)!r}: SLURM takes a backslash or a newline in a path for a pattern")
    if problems := missing_pieces(loaded, request.jobs):
        raise ManifestError(loaded.path, locate(loaded.path, problems))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m slurm.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", nargs="?", type=Path, default=_DEFAULT, help="default: the demo's")
    parser.add_argument("--only", default="", metavar="KEY=VALUE,...", help="as for experiments.run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--site", type=Path, metavar="FILE", help="settings of the cluster")
    parser.add_argument("--smoke", action="store_true", help="as for experiments.run")
    parser.add_argument("--dry-run", action="store_true", help="print scripts and commands, queue nothing")
    parser.add_argument("--retry-failed", action="store_true", help="try again what has failed for good")
    parser.add_argument(
        "--ignore-queue", action="store_true", help="queue what is not done, even if it is queued already"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
