"""One process of a stage that runs as several; ``experiments.launch`` starts it.

python -m experiments.launch_worker LAUNCHER_PID ENVIRONMENT MODULE ARGS
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence

from experiments.stopping import end_with_parent

# What srun says of the launcher: libraries that look for SLURM or MPI would take it for this process's rank.
_OF_THE_LAUNCHER = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NPROCS", "PMI_RANK", "PMI_SIZE")


def main(argv: Sequence[str]) -> int:
    """Calls ``MODULE.main(ARGS)``; the process is killed when the launcher dies, even by kill -9.

    Args:
        argv: the launcher's pid, further environment as a JSON object of texts, module and arguments.
    """
    launcher, environment, module, *args = argv
    end_with_parent(int(launcher))
    for name in _OF_THE_LAUNCHER:
        os.environ.pop(name, None)
    os.environ.update(json.loads(environment))
    code: int = importlib.import_module(module).main(args)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
