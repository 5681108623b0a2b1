"""Trains one cell on all nodes of a SLURM job: one launcher on each, which meet in a store that is held here.

    python -m slurm.across_nodes --processes 4 --nodes 2 --config fsdp2 po.train CELL_FOLDER

Takes what ``experiments.launch`` takes. Runs in the batch step, on the first node, where the cell's claim is
held. GRID_MASTER_ADDR is the address of the first node for the others, where the one that is found will not
do; GRID_PREFIX are words before the command of each node, such as those of a container, which must hold srun.

Exit    the highest of the nodes: 0 done, 65 bad data or settings, 85 stopped after SIGTERM at a step boundary
        (run again to go on), 1 one of them crashed
"""

import datetime
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from torch._C._distributed_c10d import TCPStore  # the public name has no type

from experiments.launch import BAD_INPUT, INTERRUPTED, STOP_S, read_options
from experiments.launch_config import configured

_ASK_S = 30
# srun is killed when this process is. A fork that does more than exec may hang where there are threads.
_BOUND = (
    "import os, sys; from experiments.stopping import end_with_parent; "
    "end_with_parent(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``experiments.launch`` with these arguments on every node; main thread only."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = read_options(arguments)
    try:
        _check_job(options.nodes, os.environ)
        configured(options.config, options.processes * options.nodes)  # one message, not one from each node
        host = first_address(os.environ)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    run_id = uuid.uuid4().hex
    # Bound to a free port from here to the end: a port that is chosen first and bound later may be lost.
    store = TCPStore(
        "localhost", 0, is_master=True, wait_for_workers=False, timeout=datetime.timedelta(seconds=60)
    )
    store.set(run_id, "")
    place = f"[{host}]:{store.port}" if ":" in host else f"{host}:{store.port}"
    meeting = ["--rendezvous", place, "--run-id", run_id]
    prefix = shlex.split(os.environ.get("GRID_PREFIX", ""))
    command = [*prefix, sys.executable, "-m", "experiments.launch", *meeting, *arguments]
    return _run([*_srun(options.nodes, os.environ), *command], _environment(os.environ, options.processes))


def _check_job(nodes: int, environment: Mapping[str, str]) -> None:
    """Raises ValueError where there is no job of SLURM, or one with fewer nodes."""
    if "SLURM_JOB_ID" not in environment:
        raise ValueError(f"--nodes {nodes}: this is no job of SLURM; start it by: sbatch slurm/grid.sh")
    given = environment.get("SLURM_JOB_NUM_NODES", "1")
    if int(given) < nodes:
        raise ValueError(
            f"--nodes {nodes}: job {environment['SLURM_JOB_ID']} has {given}; ask for more in resources"
        )


def first_address(environment: Mapping[str, str]) -> str:
    """A name or address of this node that the other nodes can reach.

    Args:
        environment: GRID_MASTER_ADDR decides; else SLURMD_NODENAME, where it resolves; else what SLURM itself
            uses for that node; else the host's name.
    """
    if told := environment.get("GRID_MASTER_ADDR"):
        return told
    name = environment.get("SLURMD_NODENAME", "")
    if name and not _resolves(name):
        name = _node_address(name)
    return name or socket.gethostname()


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def _node_address(name: str) -> str:
    """NodeAddr of a node, or nothing where SLURM does not say one that resolves."""
    command = ["scontrol", "show", "node", name]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bNodeAddr=(\S+)", told)
    return found[1] if found and _resolves(found[1]) else ""


def _srun(nodes: int, environment: Mapping[str, str]) -> list[str]:
    """Starts one task on each node. A step that does not ask for GPUs gets all those of the job."""
    command = [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--mpi=none",
    ]
    command += ["--mem=0", "--kill-on-bad-exit=0"]  # all memory of the job; 85 is no reason to kill
    command += [f"--wait={STOP_S}"]  # where a node crashed, the others may wait for it in a collective
    cpus = environment.get("SLURM_CPUS_PER_TASK")
    return [*command, f"--cpus-per-task={cpus}"] if cpus else command


def _environment(given: Mapping[str, str], processes: int) -> dict[str, str]:
    """The environment of srun: SLURM 22.05 does not hand the cores of the job on to its steps by itself."""
    # --mem=0 stands for them; where both are set, srun refuses to start.
    memory = ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_GPU")
    environment = {name: value for name, value in given.items() if name not in memory}
    if cpus := given.get("SLURM_CPUS_PER_TASK"):
        environment |= {"SRUN_CPUS_PER_TASK": cpus, "OMP_NUM_THREADS": str(max(1, int(cpus) // processes))}
    return environment


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs srun to its end, handing SIGTERM and SIGINT on as SIGUSR1: at a SIGTERM it kills all tasks."""
    process: subprocess.Popen[bytes] | None = None
    asked = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            process.send_signal(signal.SIGUSR1)

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, hand_on)
        for number in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        bound = [sys.executable, "-c", _BOUND, str(os.getpid()), *command]
        process = subprocess.Popen(bound, env=dict(environment))
        if asked:  # while it was being started
            process.send_signal(signal.SIGUSR1)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked and code:
        return INTERRUPTED
    return code if code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
