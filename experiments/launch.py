"""Runs a stage's module as several processes, one on each device, as accelerate's launcher would.

    python -m experiments.launch --processes 2 po.train CELL_FOLDER
    python -m experiments.launch --processes 8 --config fsdp2 po.train CELL_FOLDER

Several nodes need SLURM: ``slurm.across_nodes`` starts this on each of them, with --rendezvous and --run-id.

Exit    that of the stage, whose processes agree on it; 65 a configuration that cannot be used;
        85 stopped after SIGTERM or SIGUSR1 at a step boundary; 1 if one of the processes crashed
"""

import argparse
import datetime
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch._C._distributed_c10d import PrefixStore, TCPStore  # the public name has no type
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from experiments.launch_config import configured

BAD_INPUT = 65
INTERRUPTED = 85
STOP_S = 600  # a step and a checkpoint may take minutes; what comes then is SIGKILL
_REACH_S, _MEET_S = 60, 900  # the store listens already; other nodes may read their programs slowly
_PULSE_S = 2.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the nodes of one cell meet: a store that outlives them all.

    Attributes:
        host, port: of the store.
        run_id: a key that it holds, so that nobody joins another cell's store.
        node: which node this is, from 0; its processes have the ranks after those of the node before.
        nodes: how many there are.
    """

    host: str
    port: int
    run_id: str
    node: int
    nodes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Starts ``module.main(args)`` in each process and returns their exit code."""
    options = read_options(argv)
    try:
        meeting = _meeting(options)
        environment = configured(options.config, options.processes * options.nodes)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    return launch(options.module, options.args, options.processes, environment, meeting)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a fault in it ends the process."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, required=True, metavar="P", help="on each node")
    parser.add_argument("--nodes", type=int, default=1, metavar="N")
    parser.add_argument("--config", metavar="NAME", help="ddp, fsdp2, zero3, or accelerate's own file")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="the store that slurm.across_nodes holds")
    parser.add_argument("--run-id", metavar="ID", help="a key of that store")
    parser.add_argument("--node-rank", type=int, metavar="R", help="default: what srun says")
    parser.add_argument("module")
    parser.add_argument("args", nargs="+")
    options = parser.parse_args(argv)
    for name in ("processes", "nodes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} = {getattr(options, name)}: a number from 1 is needed")
    return options


def _meeting(options: argparse.Namespace) -> Rendezvous | None:
    if options.rendezvous is None:
        if options.nodes > 1:
            raise ValueError(f"--nodes {options.nodes}: several nodes need SLURM: sbatch slurm/grid.sh")
        return None
    host, _, port = options.rendezvous.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--rendezvous {options.rendezvous}: HOST:PORT is needed")
    told = os.environ.get("SLURM_NODEID", "") if options.node_rank is None else str(options.node_rank)
    if not told.isdecimal() or int(told) >= options.nodes:
        raise ValueError(
            f"node rank {told or 'unknown'} of {options.nodes}: give --node-rank, or start by srun"
        )
    if not options.run_id:
        raise ValueError("--rendezvous needs --run-id, which the store holds as a key")
    return Rendezvous(host.strip("[]"), int(port), options.run_id, int(told), options.nodes)


def launch(
    module: str,
    args: Sequence[str],
    n_processes: int,
    environment: Mapping[str, str] | None = None,
    meeting: Rendezvous | None = None,
) -> int:
    """Runs ``module.main(args)`` in processes that find one another through torch.distributed.

    SIGTERM and SIGUSR1 ask them to stop at a step boundary, for which they are given time. Main thread only.

    Args:
        module: has ``main(argv) -> int``.
        args: for ``main``.
        n_processes: how many on this node; each uses the device of its local rank, or the CPU.
        environment: for these processes only.
        meeting: where several nodes meet.

    Returns:
        The stage's exit code.
    """
    rendezvous_handler_registry.register("held", _HeldRendezvous.of)
    config = LaunchConfig(
        min_nodes=meeting.nodes if meeting else 1,
        max_nodes=meeting.nodes if meeting else 1,
        nproc_per_node=n_processes,
        run_id=meeting.run_id if meeting else uuid.uuid4().hex,
        rdzv_backend="held" if meeting else "c10d",
        # A free port where there is one node, so two cells on one machine never meet.
        rdzv_endpoint=f"{meeting.host}:{meeting.port}" if meeting else "localhost:0",
        rdzv_configs={"meeting": meeting} if meeting else {},
        max_restarts=0,
        shutdown_timeout=STOP_S,
        signals_to_handle="SIGUSR2",  # none of ours: torch would let a second SIGTERM break off the first
    )
    worker = [
        "-m",
        "experiments.launch_worker",
        str(os.getpid()),
        json.dumps(dict(environment or {})),
        module,
    ]
    with _Stop() as stop:
        try:
            elastic_launch(config, sys.executable)(*worker, *args)
        except SignalException:
            return INTERRUPTED
        except _UnreachableError as error:
            sys.stderr.write(f"{error}\n")
            return INTERRUPTED if stop.asked else 1
        except ChildFailedError as error:
            return INTERRUPTED if stop.asked else max(1, error.get_first_failure()[1].exitcode)
    return 0


class _Stop:
    """The first signal stops the processes, later ones do nothing. Ctrl-C is the runner's to hear."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Stop":
        self._before = {number: signal.signal(number, self._ask) for number in _STOP_SIGNALS}
        self._before[signal.SIGUSR2] = signal.getsignal(signal.SIGUSR2)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            raise SignalException(signal.Signals(number).name, signal.SIGTERM)  # SIGTERM for the processes


class _UnreachableError(RuntimeError):
    """The store does not answer, or is another run's."""


class _HeldRendezvous(StaticTCPRendezvous):
    """Nodes with fixed ranks meet in a store that none of them holds, so that no port can be lost to another.

    Args:
        meeting: where.
    """

    def __init__(self, meeting: Rendezvous) -> None:
        super().__init__(meeting.host, meeting.port, meeting.node, meeting.nodes, meeting.run_id, _MEET_S)

    @classmethod
    def of(cls, parameters: Any) -> "_HeldRendezvous":
        return cls(parameters.get("meeting"))

    def get_backend(self) -> str:
        """The name that it is registered by."""
        return "held"

    def next_rendezvous(self) -> RendezvousInfo:
        """Raises _UnreachableError after a minute."""
        store, pulse = self._connected(), self._connected()
        _daemon(lambda: _end_with_store(pulse, self.run_id))
        store.set_timeout(datetime.timedelta(seconds=_MEET_S))
        place = RendezvousStoreInfo(self.master_addr, self.master_port)
        return RendezvousInfo(PrefixStore(self.run_id, store), self.rank, self.world_size, place)

    def _connected(self) -> TCPStore:
        where = f"node {self.rank}: the store at {self.master_addr}:{self.master_port}"
        advice = "set GRID_MASTER_ADDR to an address of the first node that all nodes reach"
        timeout = datetime.timedelta(seconds=_REACH_S)
        try:
            store = TCPStore(self.master_addr, self.master_port, is_master=False, timeout=timeout)
            found = store.check([self.run_id])
        except RuntimeError as error:
            raise _UnreachableError(f"{where} does not answer ({error}); {advice}") from error
        if not found:
            raise _UnreachableError(f"{where} is another run's; {advice}")
        return store


def _end_with_store(store: TCPStore, key: str) -> None:
    """Ends this node's processes when the store is gone: whoever held it, and the claim, has died."""
    while True:
        time.sleep(_PULSE_S)
        try:
            store.check([key])
        except RuntimeError:
            sys.stderr.write("the process that holds this cell is gone; its processes end here too\n")
            os._exit(1)  # which kills the workers


def _daemon(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
