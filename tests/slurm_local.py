"""A SLURM cluster of its own for a test: daemons as children of this process, all state in one folder.

    python tests/slurm_local.py [--nodes 2] [--munge] -- sbatch slurm/grid.sh MANIFEST

Needs the programs of Debian's slurm-wlm (and munge); neither root nor the system's own configuration. Every
node is this machine under another name; CPUs and GPUs are only declared, the GPUs being harmless devices.
"""

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as a program
from experiments.stopping import end_with_parent  # noqa: E402

START_S, STOP_S = 40.0, 20.0
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
{auth}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobs.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=20
SlurmctldTimeout=30
KillWait=3
MinJobAge=3600
MaxArraySize={max_array_size}
GresTypes=gpu
DefMemPerCPU=256
PropagateResourceLimits=NONE
{nodes}
{extra}
PartitionName=main Nodes=ALL Default=YES DefaultTime=20 MaxTime=INFINITE State=UP
"""


def is_installed() -> bool:
    """Whether the daemons are on this machine."""
    path = _search_path()
    return all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "sbatch"))


class Cluster:
    """A running cluster, as a context manager.

    Args:
        nodes: how many, named n1, n2, ...
        cpus, gpus: that each node declares.
        munge: authenticate by a munge daemon of its own instead of not at all.
        max_array_size: SLURM's cap of the array index, plus one.
        extra: further lines of slurm.conf.

    Attributes:
        folder: of its state and logs.
        environment: for processes that are to use it.
    """

    def __init__(
        self,
        nodes: int = 1,
        cpus: int = 8,
        gpus: int = 2,
        *,
        munge: bool = False,
        max_array_size: int = 1001,
        extra: str = "",
    ) -> None:
        self.n_nodes, self._munge = nodes, munge
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for sockets
        self.folder.chmod(0o755)  # munge's socket must be reachable
        names = [f"n{number}" for number in range(1, nodes + 1)]
        for name in ("log", "state", *names):
            (self.folder / name).mkdir()
        port, *ports = _free_ports(nodes + 1)
        host = socket.gethostname().split(".")[0]
        declared = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=65536"
        declared += f" Gres=gpu:{gpus}" if gpus else ""
        lines = [f"NodeName={name} Port={port} {declared}" for name, port in zip(names, ports, strict=True)]
        auth = "AuthType=auth/none\nCredType=cred/none\nAuthInfo=cred_expire=5"
        if munge:
            auth = f"AuthType=auth/munge\nAuthInfo=socket={self.folder}/munge.sock,cred_expire=5"
        text = _CONFIGURATION.format(
            host=host,
            port=port,
            user=getpass.getuser(),
            auth=auth,
            folder=self.folder,
            max_array_size=max_array_size,
            nodes="\n".join(lines),
            extra=extra,
        )
        (self.folder / "slurm.conf").write_text(text)
        devices = "".join(f"Name=gpu File={device}\n" for device in _DEVICES[:gpus])
        (self.folder / "gres.conf").write_text(devices)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.environment = kept | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _search_path()}

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command of SLURM, to its end."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=check
        )

    def queue(self) -> list[tuple[str, str, str]]:
        """Id, state and reason of every array element or job that has not ended."""
        found = self.run("squeue", "-h", "-r", "-o", "%i|%T|%r", check=True).stdout.splitlines()
        return [(job, state, reason) for job, state, reason in (line.split("|") for line in found)]

    def wait_until_empty(self, timeout_s: float) -> None:
        """Returns when nothing is queued and nothing runs; an error when that takes too long."""
        end = time.monotonic() + timeout_s
        while found := self.queue():
            if time.monotonic() > end:
                raise AssertionError(f"after {timeout_s} s there is still in the queue: {found}")
            time.sleep(0.2)

    def daemon(self, name: str) -> subprocess.Popen[bytes]:
        """The process of ``slurmctld``, ``munged`` or ``slurmd-n1``."""
        return self._daemons[name]

    def restart(self, name: str) -> None:
        """Ends a daemon and starts it again, as a service manager would."""
        daemon = self._daemons.pop(name)
        command = list(daemon.args) if not isinstance(daemon.args, str) else [daemon.args]
        _end(daemon)
        self._spawn(name, *map(str, command))

    def __enter__(self) -> "Cluster":
        try:
            if self._munge:
                self._start_munge()
            self._spawn("slurmctld", "slurmctld", "-D")
            for number in range(1, self.n_nodes + 1):
                self._spawn(f"slurmd-n{number}", "slurmd", "-D", "-N", f"n{number}")
            self._wait(self._all_idle)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user", getpass.getuser())
        end = time.monotonic() + STOP_S
        while time.monotonic() < end and self.run("squeue", "-h").stdout.strip():
            time.sleep(0.1)
        for daemon in reversed(self._daemons.values()):
            _end(daemon)
        if "KEEP_SLURM_LOGS" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, name: str, program: str, *options: str) -> None:
        found = shutil.which(program, path=self.environment["PATH"])
        if found is None:
            raise FileNotFoundError(f"{program} is not installed")
        parent = os.getpid()
        with open(self.folder / "log" / f"{name}.err", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                [found, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(parent),  # also where the tests are killed
            )

    def _start_munge(self) -> None:
        key, socket_path = self.folder / "munge.key", self.folder / "munge.sock"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        files = [f"--key-file={key}", f"--socket={socket_path}", f"--pid-file={self.folder}/munged.pid"]
        files += [f"--log-file={self.folder}/log/munged.log", f"--seed-file={self.folder}/munge.seed"]
        self._spawn("munged", "munged", "--foreground", "--num-threads=2", *files)
        self._wait(socket_path.exists)

    def _all_idle(self) -> bool:
        rows = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout.splitlines()
        return sum(row.endswith(" idle") for row in rows) == self.n_nodes

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_S
        while not condition():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = (path.read_text(errors="replace")[-2000:] for path in (self.folder / "log").iterdir())
                raise RuntimeError(f"the cluster did not start; ended: {dead}\n" + "\n".join(logs))
            time.sleep(0.05)


def _search_path() -> str:
    return os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _end(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main() -> int:
    """Runs one command against a cluster of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--munge", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with Cluster(options.nodes, gpus=options.gpus, munge=options.munge) as cluster:
        return subprocess.call(options.command, env=cluster.environment)


if __name__ == "__main__":
    sys.exit(main())
