import os
import random
import signal
import sys
import time
from collections import defaultdict

import pytest
from processes import TIMEOUT_S, fork, until, wait

from experiments.claim import claim_state
from experiments.stage_command import StageCommand, write_command
from experiments.stage_process import run_stage
from experiments.stage_status import effective_state, read_status

N_STAGES = 20
N_SURE_KILLS = 10  # of owners whose stage runs: no stage ends before, however slow the machine is
RACING_STAGE = """
import os, pathlib, time
from processes import TIMEOUT_S, until

def main(argv):
    folder, runs = pathlib.Path(argv[0]), os.open(argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(runs, f"{folder.name} {os.getpid()} {time.monotonic_ns()}\\n".encode())
    os.close(runs)
    until((folder.parent / "may_end").exists, TIMEOUT_S)
    time.sleep(float(argv[2]))
    (folder / "result").write_text(str(os.getpid()))
    return 0
"""


@pytest.fixture
def make_cells(tmp_path, monkeypatch):
    (tmp_path / "racing_stage.py").write_text(RACING_STAGE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(seconds, n_stages=N_STAGES):
        folders = [tmp_path / f"cell-{index}" for index in range(n_stages)]
        for folder in folders:
            folder.mkdir()
            command = StageCommand(
                module="racing_stage",
                argv=(str(folder), str(tmp_path / "runs.txt"), str(seconds)),
                stage_hash="abc",
                artefacts=("result",),
                max_attempts=10_000,
            )
            write_command(folder, "train", command)
        return folders

    return make


def race(folders, seed):
    """Goes over the cells in an order of its own until all are done."""
    sys.stderr = open(folders[0].parent / f"racer-{seed}.txt", "w")
    order, end = random.Random(seed), time.monotonic() + TIMEOUT_S
    left = list(folders)
    until((folders[0].parent / "go").exists, TIMEOUT_S)
    while left:
        assert time.monotonic() < end
        order.shuffle(left)
        assert {run_stage(folder, "train") for folder in left} <= {0, 75}
        left = [folder for folder in left if effective_state(folder, "train", "abc") != "done"]
        time.sleep(0.002)
    return 0


def runs_by_cell(folders):
    runs, file = defaultdict(list), folders[0].parent / "runs.txt"
    for line in file.read_text().splitlines() if file.exists() else ():
        cell, pid, start_ns = line.split()
        runs[cell].append((int(start_ns), int(pid)))
    return {folder: sorted(runs[folder.name]) for folder in folders}


def owners(folders):
    """Pids of those that hold a claim."""
    states = [claim_state(folder, "train") for folder in folders]
    return {state.owner.pid for state in states if state.kind == "held" and state.owner}


def running(folders):
    """Pids of the owners whose stage has begun: to kill one makes its stage run again."""
    return owners(folders) & {pid for runs in runs_by_cell(folders).values() for _, pid in runs}


@pytest.mark.parametrize("n_racers", [2, 8, 50])
def test_racing_processes_do_every_stage_exactly_once(tmp_path, make_cells, n_racers):
    cells = make_cells(seconds=0.004)
    racers = [fork(lambda seed=seed: race(cells, seed)) for seed in range(n_racers)]
    (tmp_path / "may_end").touch()
    (tmp_path / "go").touch()
    assert [wait(pid) for pid in racers] == [0] * n_racers
    for folder, runs in runs_by_cell(cells).items():
        assert len(runs) == 1
        assert read_status(folder, "train").pid == runs[0][1]
        left = {"attempts.jsonl", "result", "stage.train.json", "status.train.json"}
        assert set(os.listdir(folder)) == left


def be_element(index, restart, kills):
    """Makes this process the copy of an array element that SLURM has requeued so many times."""
    os.environ |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": "99"}
    os.environ["SLURM_RESTART_COUNT"] = str(restart)
    kill = os.kill

    def say_so_and_kill(pid, number):
        if number == signal.SIGKILL:  # said first: this process may be killed right after it has killed
            with open(kills, "a") as file:
                file.write(f"{pid} {time.monotonic_ns()}\n")
        kill(pid, number)

    os.kill = say_so_and_kill


def requeue(cells, kills, n_times):
    """Starts elements anew whose earlier copies live, one for each cell; returns all copies, by element.

    The first copies hold all cells, so that a second copy can have no other than that of its own first.
    """
    order = random.Random(2)

    def copy(index, restart):
        def work():
            be_element(index, restart, kills)
            return race(cells, 1000 * index + restart)

        return fork(work)

    copies = {index: [copy(index, 0)] for index in range(len(cells))}
    (cells[0].parent / "go").touch()
    until(lambda: len(running(cells)) == len(cells), TIMEOUT_S)
    for index in range(len(cells)):
        second = copy(index, 1)
        copies[index].append(second)
        until(lambda second=second: second in running(cells), TIMEOUT_S)
    (cells[0].parent / "may_end").touch()
    for _ in range(n_times):
        time.sleep(0.02)
        holding = sorted(index for index in copies if copies[index][-1] in owners(cells))
        index = order.choice(holding or sorted(copies))
        copies[index].append(copy(index, len(copies[index])))
    return copies


def first_kills(kills):
    """When each process was killed for the first time; the dead may be killed again."""
    found = {}
    for line in kills.read_text().splitlines():
        pid, ns = line.split()
        found.setdefault(int(pid), int(ns))
    return found


def test_requeued_elements_end_their_earlier_copies_and_no_stage_is_run_twice_at_a_time(tmp_path, make_cells):
    cells, kills = make_cells(seconds=0.2, n_stages=8), tmp_path / "kills.txt"
    kills.touch()
    copies = requeue(cells, kills, n_times=17)
    codes = {pid: wait(pid) for pids in copies.values() for pid in pids}
    killed_ns = first_kills(kills)
    assert set(codes.values()) == {0, -signal.SIGKILL}, "some are killed, or nothing was tested"
    assert {pid for pid, code in codes.items() if code} <= set(killed_ns)
    assert not {pids[-1] for pids in copies.values()} & set(killed_ns), "the newest copy was killed"
    for folder, runs in runs_by_cell(cells).items():
        for (_, pid), (next_start_ns, _) in zip(runs, runs[1:], strict=False):
            assert pid in killed_ns, f"{folder.name} was run again although pid {pid} had completed it"
            assert next_start_ns > killed_ns[pid], f"{folder.name} was run by two processes at a time"
        status = read_status(folder, "train")
        assert (status.state, status.pid) == ("done", runs[-1][1])


def kill_and_replace(cells, racers, n_kills):
    """Kills racers, more than half of them owners of a claim; returns when each was killed."""
    order, killed_ns, seed = random.Random(1), {}, len(racers)
    while len(killed_ns) < n_kills:
        time.sleep(0.003)
        if len(killed_ns) < N_SURE_KILLS:
            until(lambda: running(cells) & racers, TIMEOUT_S)
            pool = running(cells) & racers
        else:
            (cells[0].parent / "may_end").touch()
            pool = (owners(cells) & racers if order.random() < 0.5 else set()) or racers
        victim = order.choice(sorted(pool))
        killed_ns[victim] = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        racers.remove(victim)
        seed += 1
        racers.add(fork(lambda seed=seed: race(cells, seed)))
    return killed_ns


@pytest.mark.parametrize(("n_racers", "seconds"), [(8, 0.3), (50, 1.0)])
def test_racers_killed_and_started_again_lose_no_stage_and_complete_none_twice(
    tmp_path, make_cells, n_racers, seconds
):
    cells = make_cells(seconds)
    racers = {fork(lambda seed=seed: race(cells, seed)) for seed in range(n_racers)}
    (tmp_path / "go").touch()
    killed_ns = kill_and_replace(cells, racers, n_kills=50)
    assert {wait(pid) for pid in racers} == {0}
    n_runs = 0
    for folder, runs in runs_by_cell(cells).items():
        for (_, pid), (next_start_ns, _) in zip(runs, runs[1:], strict=False):
            assert pid in killed_ns, f"{folder.name} was run again although pid {pid} had completed it"
            assert next_start_ns > killed_ns[pid], f"{folder.name} was run by two processes at a time"
        status = read_status(folder, "train")
        assert (status.state, status.pid) == ("done", runs[-1][1])
        assert claim_state(folder, "train").kind != "held"
        n_runs += len(runs)
    assert n_runs >= N_STAGES + N_SURE_KILLS, "stages of the killed, begun, are run again"
