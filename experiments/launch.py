"""Runs a stage's module on several devices of one machine through accelerate.

    python -m experiments.launch --processes 2 po.train CELL_FOLDER
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Starts ``accelerate launch -m MODULE ARGS`` and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("module")
    parser.add_argument("args", nargs="+")
    options = parser.parse_args(argv)
    # port 0 lets the rendezvous choose a free port, so two cells on one machine never meet
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(options.processes)]
    command = [*launcher, "--main_process_port", "0", "-m", options.module, *options.args]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
