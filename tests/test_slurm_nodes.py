"""One cell on several nodes of a real SLURM: trained as one process trains it, also after a stop."""

import json
import os
import pathlib
import re
import socket
import sys
import time

import pytest
import slurm_local
import torch
from test_distributed import forget, timeless, weights
from tiny_training import add_dpo, change_training, make_experiment, read_log
from toy_worker import read_notes

from po import train
from po.training.checkpoint import MARKER
from slurm import across_nodes

HERE = pathlib.Path(__file__).parent
TIMEOUT_S = 240.0

on_a_cluster = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        not slurm_local.is_installed(), reason="SLURM is not installed (apt-get install slurm-wlm)"
    ),
]


def marked(test):
    for mark in on_a_cluster:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def cluster():
    with slurm_local.Cluster(nodes=2) as running:
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        running.environment |= {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        yield running


def until(condition):
    """Looks ten times a second: what is asked is a program of SLURM."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.1)


class Job:
    """A job on both nodes whose batch step is slurm.across_nodes."""

    def __init__(self, cluster, folder, *arguments, processes=1, sbatch=("--cpus-per-task=2",)):
        self._cluster, self._output = cluster, folder / "job.log"
        across = [sys.executable, "-m", "slurm.across_nodes", "--processes", str(processes), "--nodes", "2"]
        where = [
            "--nodes=2",
            "--ntasks-per-node=1",
            "--mem=1G",
            f"--output={self._output}",
            "--open-mode=append",
        ]
        command = ["sbatch", "--parsable", *where, f"--chdir={HERE.parent}", *sbatch]
        wrapped = ["--wrap", "exec " + " ".join([*across, *map(str, arguments)])]
        self.number = cluster.run(*command, *wrapped, check=True).stdout.strip()

    def facts(self):
        told = self._cluster.run("scontrol", "show", "job", self.number, check=True).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", told))

    def signal(self, name):
        self._cluster.run("scancel", "--batch", f"--signal={name}", self.number, check=True)

    def is_running(self):
        return self.facts()["JobState"] in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")

    def end(self):
        """Exit code and all output."""
        until(lambda: not self.is_running())
        return int(self.facts()["ExitCode"].split(":")[0]), self._output.read_text()


@pytest.fixture
def dpo(tmp_path):
    sft = make_experiment(tmp_path / "runs", n_rows=24)
    change_training(sft, max_steps=2)
    assert train.main([str(sft)]) == 0
    folder = add_dpo(sft.parents[1], sft)
    change_training(folder, per_device_batch_size=2, save_steps=3)
    return folder


def same_losses(folder, expected):
    assert len(expected) > 3
    for one, two in zip(expected[:-1], read_log(folder)[:-1], strict=True):
        near = {name: pytest.approx(value, rel=1e-6, abs=1e-6) for name, value in timeless(one).items()}
        assert timeless(two) == near


# -- on a cluster


@marked
def test_two_nodes_train_what_one_process_trains(cluster, dpo, tmp_path):
    assert train.main([str(dpo)]) == 0
    log = read_log(dpo)
    forget(dpo)
    code, output = Job(cluster, tmp_path, "--config", "ddp", "po.train", dpo).end()
    assert code == 0, output
    result = json.loads((dpo / "train.json").read_text())
    assert (result["processes"], result["steps"]) == (2, 6)
    same_losses(dpo, log)
    assert not (dpo / "attempts").exists()


@marked
def test_a_stop_saves_on_both_nodes_and_the_next_job_goes_on_as_if_there_had_been_none(
    cluster, dpo, tmp_path
):
    change_training(dpo, max_steps=60, save_steps=3)
    assert train.main([str(dpo)]) == 0
    expected, log = weights(dpo), read_log(dpo)
    forget(dpo)
    job = Job(cluster, tmp_path, "po.train", dpo)
    until(lambda: list(dpo.glob(f"attempts/*/checkpoint-*/{MARKER}")) or not job.is_running())
    job.signal("TERM")
    code, output = job.end()
    assert code == 85, output
    (marker,) = dpo.glob(f"attempts/*/checkpoint-*/{MARKER}")
    assert json.loads(marker.read_text())["step"] < 60
    assert (marker.parent / "rng_state_1.pth").is_file()
    code, output = Job(cluster, tmp_path, "po.train", dpo).end()
    assert code == 0, output
    result = json.loads((dpo / "train.json").read_text())
    assert (result["processes"], result["resumed"]) == (2, True)
    same_losses(dpo, log)
    found = weights(dpo)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


@marked
def test_each_node_has_its_share_of_what_the_job_was_given(cluster, tmp_path):
    given = ("--cpus-per-task=4", "--gres=gpu:2")
    code, output = Job(
        cluster, tmp_path, "toy_worker", tmp_path, "give", "0", processes=2, sbatch=given
    ).end()
    assert code == 0, output
    seen = [note["environment"] for note in read_notes(tmp_path)]
    assert [found["SLURMD_NODENAME"] for found in seen] == [
        "n1",
        "n1",
        "n2",
        "n2",
    ]  # rank 0 is where the claim is
    assert [found["LOCAL_RANK"] for found in seen] == ["0", "1", "0", "1"]
    assert {found["CUDA_VISIBLE_DEVICES"] for found in seen} == {"0,1"}
    assert {found["OMP_NUM_THREADS"] for found in seen} == {"2"}
    assert not any("SLURM_PROCID" in found for found in seen)


@marked
def test_bad_data_on_all_nodes_keep_their_exit_code(cluster, tmp_path):
    code, output = Job(cluster, tmp_path, "toy_worker", tmp_path, "give", "65").end()
    assert code == 65, output


@marked
def test_the_death_of_the_batch_step_leaves_no_process_on_any_node(cluster, tmp_path):
    job = Job(cluster, tmp_path, "toy_worker", tmp_path, "sleep")
    until(lambda: len(read_notes(tmp_path)) == 2)
    job.signal("KILL")
    until(lambda: not any(pathlib.Path(f"/proc/{note['pid']}").exists() for note in read_notes(tmp_path)))
    until(lambda: not job.is_running())


# -- without one


JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "--nodes 3: this is no job of SLURM; start it by: sbatch slurm/grid.sh"),
        (JOB, "--nodes 3: job 7 has 2; ask for more in resources"),
        (JOB | {"SLURM_JOB_NUM_NODES": "3"}, "did you mean 'fsdp2'?"),
    ],
)
def test_what_cannot_start_is_one_clear_error(environment, message, monkeypatch, capsys):
    for name in JOB:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert across_nodes.main(["--processes", "1", "--nodes", "3", "--config", "fspd2", "po.train", "x"]) == 65
    assert message in capsys.readouterr().err


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in that knows one node."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'NodeName=n7 Arch=x86_64'; echo '   NodeAddr=127.0.0.7 NodeHostName=h'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"GRID_MASTER_ADDR": "10.1.2.3", "SLURMD_NODENAME": "localhost"}, "10.1.2.3"),
        ({"SLURMD_NODENAME": "localhost"}, "localhost"),
        ({"SLURMD_NODENAME": "n7.invalid"}, "127.0.0.7"),
        ({}, socket.gethostname()),
    ],
)
def test_the_first_node_is_reached_by_what_is_known_of_it(environment, address, scontrol):
    assert across_nodes.first_address(environment) == address


def fake_srun(tmp_path, monkeypatch, script):
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)


def test_memory_that_was_asked_for_twice_does_not_keep_srun_from_starting(tmp_path, monkeypatch):
    script = f"import os, sys, json; json.dump([sys.argv, dict(os.environ)], open('{tmp_path}/seen', 'w'))"
    fake_srun(tmp_path, monkeypatch, script)
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert across_nodes.main(["--processes", "2", "--nodes", "2", "po.train", "x"]) == 0
    argv, environment = json.loads((tmp_path / "seen").read_text())
    assert not {"SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE"} & set(environment)
    assert (environment["SRUN_CPUS_PER_TASK"], environment["OMP_NUM_THREADS"]) == ("6", "3")
    assert {"--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=6", "--mem=0"} <= set(argv)
    assert argv[-6:] == ["--processes", "2", "--nodes", "2", "po.train", "x"]


def test_an_srun_that_is_killed_is_a_failure_and_no_success(tmp_path, monkeypatch):
    fake_srun(tmp_path, monkeypatch, "import os; os.kill(os.getpid(), 9)")
    assert across_nodes.main(["--processes", "1", "--nodes", "2", "po.train", "x"]) == 1


def test_a_stop_before_the_nodes_have_started_is_an_interruption_and_no_failure(tmp_path, monkeypatch):
    script = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)"
    fake_srun(tmp_path, monkeypatch, script)
    assert across_nodes.main(["--processes", "1", "--nodes", "2", "po.train", "x"]) == 85
