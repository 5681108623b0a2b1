"""Runs a stage's module as several processes of one machine, one on each device, as torchrun would.

    python -m experiments.launch --processes 2 po.train CELL_FOLDER

Exit    that of the stage, whose processes agree on it; 1 if one of them crashed
"""

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Sequence

INTERRUPTED = 85
_STOP_S = 600  # a step and a checkpoint may take minutes; what comes then is SIGKILL


def main(argv: Sequence[str] | None = None) -> int:
    """Starts ``module.main(args)`` in each process and returns their exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N")
    parser.add_argument("module")
    parser.add_argument("args", nargs="+")
    options = parser.parse_args(argv)
    if options.processes < 1:
        parser.error(f"--processes = {options.processes}: a number from 1 is needed")
    return launch(options.module, options.args, options.processes)


def launch(module: str, args: Sequence[str], n_processes: int) -> int:
    """Runs ``module.main(args)`` in processes that find one another through torch.distributed.

    SIGTERM is handed on to them, and they are given time to stop at a step boundary.

    Args:
        module: has ``main(argv) -> int``.
        args: for ``main``.
        n_processes: how many; each uses the device of its local rank, or the CPU.

    Returns:
        The stage's exit code.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port, so two cells on one machine never meet
        max_restarts=0,
        shutdown_timeout=_STOP_S,
        signals_to_handle="SIGTERM",  # Ctrl-C reaches the runner, which asks its stages to stop
    )
    worker = [sys.executable, "-m", "experiments.launch_worker", str(os.getpid()), module, *args]
    before = signal.getsignal(signal.SIGTERM)
    try:
        elastic_launch(config, worker[0])(*worker[1:])
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
