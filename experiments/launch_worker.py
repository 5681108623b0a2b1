"""One process of a stage that runs as several; ``experiments.launch`` starts it.

python -m experiments.launch_worker LAUNCHER_PID MODULE ARGS
"""

import importlib
import sys
from collections.abc import Sequence

from experiments.stopping import end_with_parent


def main(argv: Sequence[str]) -> int:
    """Calls ``MODULE.main(ARGS)``; the process is killed when the launcher dies, even by kill -9."""
    launcher, module, *args = argv
    end_with_parent(int(launcher))
    code: int = importlib.import_module(module).main(args)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
