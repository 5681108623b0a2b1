"""What is asked of SLURM, and what is said where something is wrong; SLURM's programs are scripts here."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import changed, write
from stage_states import Studied

import experiments.slurm_queue
import slurm.driver
import slurm.site
from experiments.claim import Claim
from slurm.submit import main

ROOT = Path(__file__).parents[1]
GRID_SH = ROOT / "slurm" / "grid.sh"
SBATCH = """
n=$(/bin/cat "$0.count" 2>/dev/null || echo 0); n=$((n + 1)); echo "$n" > "$0.count"
printf '%s\\0' "$@" > "$0.call.$n"; /usr/bin/env > "$0.environment.$n"
[ "$n" = "$(/bin/cat "$0.fails_at" 2>/dev/null)" ] && { echo "sbatch: error: Invalid account" >&2; exit 1; }
echo "$((100 + n));local"
"""
SCANCEL = 'echo "$*" >> "$0.calls"'
SQUEUE = """
case "$*" in *--me*) /bin/cat "$0.comments" 2>/dev/null ;; *) /bin/cat "$0.elements" 2>/dev/null ;; esac
exit 0
"""
# All that sbatch was called with is in the queue.
ALL_COMMENTS = r"""for call in "${0%/*}"/sbatch.call.*; do
    comment=$(/usr/bin/tr '\0' '\n' < "$call" | /bin/sed -n 's/^--comment=//p')
    echo "$((100 + ${call##*.}))|PENDING|$comment"
done"""
CONFIG = "echo 'MaxArraySize            = 1001'"
ARRAYS = ["prepare-1", "train-1", "generate-1", "train-2", "train-3"]


class Site:
    """A machine with fake programs of SLURM, and a study."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.bin, self._patch = folder, folder / "bin", monkeypatch
        self.bin.mkdir()
        self.manifest = write(folder, changed())
        self.runs = folder / "runs"
        self.root = self.runs / "small"
        for name, text in {
            "sbatch": SBATCH,
            "scancel": SCANCEL,
            "squeue": SQUEUE,
            "scontrol": CONFIG,
        }.items():
            self.program(name, text)
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.delenv("GRID_SITE", raising=False)
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH", "SRUN"))]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(slurm.site, "ROOT", folder)  # whose slurm/site.yaml is the user's
        monkeypatch.setattr(slurm.driver, "_WAIT_FOR_DRIVER_S", 0.2)

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def submit(self, *options):
        self._patch.setattr(experiments.slurm_queue, "_memory", experiments.slurm_queue._Memory())
        return main([str(self.manifest), "--runs", str(self.runs), *options])

    def fails_at(self, number):
        (self.bin / "sbatch.fails_at").write_text(str(number))

    def queue(self, elements="", comments=""):
        (self.bin / "squeue.elements").write_text(elements)
        (self.bin / "squeue.comments").write_text(comments)

    @property
    def calls(self):
        """Arguments of each call of sbatch."""
        paths = sorted(self.bin.glob("sbatch.call.*"), key=lambda path: int(path.suffix[1:]))
        return [path.read_text().split("\0")[:-1] for path in paths]

    @property
    def queued(self):
        return [call[-1] for call in self.calls]

    @property
    def cancelled(self):
        path = self.bin / "scancel.calls"
        return path.read_text().split() if path.exists() else []

    def forget_calls(self):
        for path in self.bin.glob("sbatch.call.*"):
            path.unlink()

    @property
    def submissions(self):
        found = (self.root / "submissions").iterdir()  # their names tell no more than seconds
        return sorted(found, key=lambda path: (path / "manifest.yaml").stat().st_mtime_ns)

    def jobs(self, number=-1):
        return json.loads((self.submissions[number] / "jobs.json").read_text())

    def ids(self):
        return {job["array"]: job["job"] for job in self.jobs()["jobs"]}

    def alive(self, *left_out):
        """What squeue says when nothing of the newest submission has started, but for some elements."""
        rows = [
            f"{job['job']}_{index}|PENDING|Dependency"
            if job["kind"] != "report"
            else f"{job['job']}|PENDING|D"
            for job in self.jobs()["jobs"]
            for index in range(job["size"])
            if f"{job['array']}_{index}" not in left_out
        ]
        return "".join(f"{row}\n" for row in rows)


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


def option(call, name):
    """The value of an option, which is there once at most."""
    found = [word.partition("=")[2] for word in call if word.startswith(f"--{name}=")]
    assert len(found) <= 1
    return found[0] if found else None


def tree(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")
    }


# -- what is queued


def test_every_array_is_queued_after_what_it_needs_and_the_report_after_all(site):
    assert site.submit() == 0
    assert site.queued == [*ARRAYS, "report"]
    assert site.ids() == dict(zip([*ARRAYS, "report"], map(str, range(101, 107)), strict=True))
    dependencies = [option(call, "dependency") for call in site.calls]
    assert dependencies == [
        None,
        "afterany:101",
        "aftercorr:102",
        "afterok:102_0",
        "afterok:102_1",
        "afterany:101:102:103:104:105",
    ]
    assert "--kill-on-invalid-dep=yes" not in site.calls[-1]
    for call in site.calls:
        script = Path(call[-2])
        assert script == site.submissions[0] / "job.sh"
        assert Path(option(call, "output")).parent.is_dir()
        assert option(call, "comment") == f"{site.submissions[0].name}/{call[-1]}"
    bash = shutil.which("bash", path="/bin:/usr/bin")
    assert subprocess.run([bash, "-n", str(script)], capture_output=True).returncode == 0


def test_a_dry_run_writes_nothing_and_shows_what_the_submission_then_does(site, capsys):
    site.runs = site.folder / "it's 100% of my runs"
    site.root = site.runs / "small"
    before = tree(site.folder)
    assert site.submit("--dry-run") == 0
    shown = capsys.readouterr().out
    assert tree(site.folder) == before
    assert site.submit() == 0
    submission = site.submissions[0]
    for array, job in site.ids().items():
        shown = shown.replace(f"ID_OF_{array.upper()}", job)
    shown = shown.replace("DRY-RUN", submission.name)
    commands = [shlex.split(line) for line in shown.splitlines() if line.startswith("sbatch ")]
    called = [["sbatch", *(word for word in call if word != "--parsable")] for call in site.calls]
    assert commands == called
    written = [shlex.split(line) for line in (submission / "commands.sh").read_text().splitlines()]
    assert written == called
    assert (submission / "job.sh").read_text() in shown
    assert "generate+score tiny.numbers.sft.s1" in shown


def test_a_dry_run_of_a_study_that_is_under_way_changes_nothing_either(site, capsys):
    assert site.submit() == 0
    lose_id(site, "train-1")
    site.queue(site.alive(), comments=f"102|PENDING|{site.submissions[0].name}/train-1\n")
    before = tree(site.runs)
    assert site.submit("--dry-run") == 0
    assert tree(site.runs) == before
    assert "20 stages" not in capsys.readouterr().out


def test_per_cents_in_a_path_are_no_patterns_of_sbatch(site):
    site.runs = site.folder / "50%a %j"
    site.root = site.runs / "small"
    assert site.submit() == 0
    train = site.calls[1]
    assert option(train, "output").endswith("/logs/train-1/%a.log")
    assert f"{site.folder}/50%%a %%j/small/submissions/" in option(train, "output")
    assert (site.submissions[0] / "logs" / "train-1").is_dir()


def test_nothing_of_the_drivers_own_job_reaches_sbatch_but_which_cluster_it_is(site, monkeypatch):
    own = {
        "SLURM_MEM_PER_NODE": "2048",
        "SLURM_CPU_BIND": "x",
        "SLURMD_NODENAME": "n1",
        "SBATCH_MEM_PER_NODE": "x",
    }
    for name, value in (
        own | {"SRUN_CPUS_PER_TASK": "1", "SLURM_CONF": "/etc/c", "SBATCH_PARTITION": "mine", "KEPT": "yes"}
    ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_ACCOUNT", "who-pays")
    assert site.submit() == 0
    found = dict(
        line.split("=", 1)
        for line in (site.bin / "sbatch.environment.1").read_text().splitlines()
        if "=" in line
    )
    assert {name for name in found if name.startswith(("SLURM", "SBATCH", "SRUN"))} == {
        "SLURM_CONF",
        "SBATCH_PARTITION",
    }
    assert (found["SLURM_CONF"], found["KEPT"]) == ("/etc/c", "yes")
    assert option(site.calls[0], "account") == "who-pays"


def test_the_cap_of_the_array_index_is_what_the_cluster_says(site):
    site.manifest = write(site.folder, changed(seeds=[1, 2, 3, 4, 5, 6, 7]))
    site.program("scontrol", "echo 'MaxArraySize            = 5'")
    assert site.submit() == 0
    sizes = [option(call, "array").partition("%")[0] for call in site.calls if call[-1].startswith("train")][
        :2
    ]
    assert sizes == ["0-4", "0-1"]


# -- the site's file


def site_yaml(site, text, name="site.yaml"):
    path = site.folder / name
    path.write_text(text)
    return str(path)


def test_the_sites_words_reach_sbatch_and_the_script(site):
    path = site_yaml(site, "partition: gpu\nqos: low\nsetup: [module load cuda]\nextra: ['--nice=3']\n")
    assert site.submit("--site", path) == 0
    for call in site.calls:
        assert (option(call, "partition"), option(call, "qos"), option(call, "nice")) == ("gpu", "low", "3")
    assert (
        "\nmodule load cuda || echo 'warning: this line of setup"
        in (site.submissions[0] / "job.sh").read_text()
    )


def test_the_manifest_wins_over_the_sites_file_word_by_word(site):
    site.manifest = write(site.folder, changed(slurm={"partition": "debug", "requeue": False}))
    path = site_yaml(site, "partition: gpu\nqos: low\nrequeue: true\n")
    assert site.submit("--site", path) == 0
    assert (option(site.calls[0], "partition"), option(site.calls[0], "qos")) == ("debug", "low")
    assert "--no-requeue" in site.calls[0]


def test_the_file_is_the_one_named_or_that_of_the_environment_or_the_usual_one(site, monkeypatch):
    (site.folder / "slurm").mkdir()
    site_yaml(site, "qos: usual", "slurm/site.yaml")
    assert site.submit() == 0
    monkeypatch.setenv("GRID_SITE", site_yaml(site, "qos: environment", "b.yaml"))
    assert site.submit() == 0
    assert site.submit("--site", site_yaml(site, "qos: named", "c.yaml")) == 0
    assert [option(call, "qos") for call in site.calls[::6]] == ["usual", "environment", "named"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qos: low\npartitoin: gpu\n", ["site.yaml:2", "unknown key 'partitoin'", "partition"]),
        ("max_parallel: 0\n", ["site.yaml:1", "max_parallel"]),
        ("gpu_option: gpus\n", ["site.yaml:1", "gpu_option", "gres"]),
        ("partition: gpu\npartition: cpu\n", ["site.yaml:2", "partition"]),
        ("- partition\n", ["site.yaml"]),
        ("setup: module load cuda\n", ["site.yaml:1", "setup", "list"]),
    ],
)
def test_a_fault_in_the_sites_file_is_named_with_its_line_and_nothing_is_queued(site, capsys, text, words):
    assert site.submit("--site", site_yaml(site, text)) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert not site.calls
    assert not site.runs.exists()


def test_a_sites_file_that_is_not_there_is_an_error(site, capsys):
    assert site.submit("--site", str(site.folder / "none.yaml")) == 2
    assert "none.yaml" in (said := capsys.readouterr().err)
    assert "site.example.yaml" in said


def test_the_example_of_a_sites_file_is_a_valid_one(site):
    assert site.submit("--site", str(ROOT / "slurm" / "site.example.yaml")) == 0
    assert option(site.calls[0], "account") == "my-project"


# -- what can be wrong


def test_a_bad_manifest_is_exit_2_and_queues_nothing(site, capsys):
    site.manifest = write(site.folder, changed(methods__dpo__from="sff"))
    assert site.submit() == 2
    assert "sff" in capsys.readouterr().err
    assert not site.calls
    assert not site.runs.exists()


def test_a_selection_of_nothing_is_exit_2(site, capsys):
    assert site.submit("--only", "method=dpp") == 2
    assert "dpp" in capsys.readouterr().err
    assert not site.calls


def test_where_sbatch_refuses_what_it_took_before_is_cancelled_and_the_next_call_starts_anew(site, capsys):
    site.fails_at(3)
    assert site.submit() == 1
    said = capsys.readouterr().err
    assert "generate-1 was not queued: sbatch: error: Invalid account" in said
    assert "jobs 101, 102 were cancelled again" in said
    assert site.cancelled == ["101", "102"]
    assert site.jobs()["cancelled"] is True
    site.forget_calls()
    site.queue("101_0|RUNNING|None\n102_0|PENDING|Dependency\n")  # scancel takes its time
    assert site.submit() == 0
    assert site.queued == [*ARRAYS, "report"]
    assert not site.jobs()["cancelled"]
    assert option(site.calls[-1], "dependency") == "afterany:104:105:106:107:108"


def test_where_nothing_was_queued_there_is_nothing_to_cancel(site, capsys):
    site.fails_at(1)
    assert site.submit() == 1
    assert "nothing was queued before it" in capsys.readouterr().err
    assert not site.cancelled


def test_what_slurm_took_without_an_answer_is_cancelled_too(site):
    site.program("squeue", SQUEUE.replace('/bin/cat "$0.comments" 2>/dev/null', ALL_COMMENTS))
    site.fails_at(3)
    assert site.submit() == 1
    assert site.cancelled == ["101", "102", "103"]


def test_where_scancel_fails_too_the_jobs_are_named_and_stay_known(site, capsys):
    site.program("scancel", "echo 'scancel: error: no contact' >&2; exit 1")
    site.fails_at(3)
    assert site.submit() == 1
    said = capsys.readouterr().err
    assert "jobs 101, 102 were queued and could not be cancelled: scancel: error: no contact" in said
    assert site.jobs()["cancelled"] is False


def test_without_sbatch_there_is_one_clear_error(site, capsys):
    (site.bin / "sbatch").unlink()
    assert site.submit() == 1
    said = capsys.readouterr().err
    assert said.count("sbatch is not on this machine; submit where SLURM is, or use experiments.run") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("queue", [None, "exit 1", "echo nonsense"])
def test_without_an_answer_of_squeue_nothing_is_queued_twice_unless_told_to(site, queue, capsys):
    assert site.submit() == 0
    site.forget_calls()
    if queue is None:
        (site.bin / "squeue").unlink()
    else:
        site.program("squeue", queue)
    assert site.submit() == 1
    assert site.queued == []
    assert (
        "nothing was queued. Start the same command again later, or with --ignore-queue"
        in capsys.readouterr().err
    )
    assert site.submit("--ignore-queue") == 0
    assert site.queued == [*ARRAYS, "report"]


def test_without_scontrol_arrays_have_the_usual_size(site):
    (site.bin / "scontrol").unlink()
    assert site.submit() == 0
    assert site.queued == [*ARRAYS, "report"]


def test_while_another_driver_is_at_work_nothing_is_queued(site, capsys):
    site.root.mkdir(parents=True)
    other = Claim(site.root, "submit")
    assert other.acquire()
    try:
        assert site.submit() == 75
    finally:
        other.release()
    assert "another driver is at work on this study" in capsys.readouterr().err
    assert not site.calls
    assert site.submit() == 0


# -- once more


def test_what_is_in_the_queue_is_not_queued_again(site, capsys):
    assert site.submit() == 0
    site.forget_calls()
    site.queue(site.alive())
    assert site.submit() == 0
    assert not site.calls
    assert "nothing was queued" in capsys.readouterr().err
    assert len(site.submissions) == 1


def test_only_what_has_left_the_queue_is_queued_and_waits_for_what_is_in_it(site):
    assert site.submit() == 0
    site.forget_calls()
    site.queue(site.alive("train-2_0", "generate-1_1"))
    assert site.submit() == 0
    calls = {call[-1]: call for call in site.calls}
    assert list(calls) == ["generate-1", "train-1", "report"]
    assert option(calls["train-1"], "dependency") == "afterok:101_0:102_0"
    assert option(calls["generate-1"], "dependency") == "afterok:101_0:102_1"
    assert option(calls["report"], "dependency") == "afterany:101:102:103:105:107:108"


def test_the_stages_of_one_method_can_be_queued_and_the_others_later(site):
    assert site.submit("--only", "method=sft") == 0
    assert site.queued == ["prepare-1", "train-1", "report"]
    site.forget_calls()
    site.queue(site.alive())
    assert site.submit() == 0
    assert site.queued == ["pairs-1", "pairs-2", "train-1", "train-2", "report"]
    assert site.queued[-1] == "report"
    assert option(site.calls[-1], "dependency").startswith("afterany:101:102:104")


def frozen(site, array):
    lines = (site.submissions[-1] / f"{array}.jsonl").read_text().splitlines()
    return [stage for line in lines for stage in json.loads(line)["stages"]]


def test_what_can_never_start_is_cancelled_and_queued_anew(site):
    assert site.submit() == 0
    site.forget_calls()
    site.queue(site.alive().replace("104_0|PENDING|Dependency", "104_0|PENDING|DependencyNeverSatisfied"))
    assert site.submit() == 0
    assert site.cancelled == ["104_0"]
    assert site.queued == ["train-1", "report"]


def lose_id(site, array):
    """As a driver leaves it that is killed before it has written the id of an array."""
    path = site.submissions[-1] / "jobs.json"
    document = json.loads(path.read_text())
    names = [job["array"] for job in document["jobs"]]
    document["jobs"] = document["jobs"][: names.index(array) + 1]
    document["jobs"][-1]["job"] = None
    path.write_text(json.dumps(document))


def test_an_array_whose_id_was_not_written_is_found_by_its_comment(site):
    assert site.submit() == 0
    alive = "".join(f"{line}\n" for line in site.alive().splitlines() if line.startswith(("101", "102")))
    lose_id(site, "train-1")
    site.forget_calls()
    site.queue(alive, comments=f"102|PENDING|{site.submissions[0].name}/train-1\n77|RUNNING|other/train-1\n")
    assert site.submit() == 0
    assert site.queued == ["generate-1", "generate-2", "train-1", "train-2", "report"]
    assert option(site.calls[2], "dependency") == "afterok:101_0:102_0"


def test_an_array_that_was_never_queued_is_forgotten(site):
    assert site.submit() == 0
    alive = "".join(f"{line}\n" for line in site.alive().splitlines() if line.startswith("101"))
    lose_id(site, "train-1")
    site.forget_calls()
    site.queue(alive)
    assert site.submit() == 0
    assert site.queued == ["train-1", "generate-1", "train-2", "train-3", "report"]
    assert option(site.calls[0], "dependency") == "afterok:101_0"


def test_a_report_that_was_never_queued_is_queued(site):
    assert site.submit() == 0
    site.queue("".join(f"{line}\n" for line in site.alive().splitlines() if not line.startswith("106")))
    site.forget_calls()
    assert site.submit() == 0
    assert site.queued == ["report"]
    assert option(site.calls[0], "dependency") == "afterany:101:102:103:104:105"


def test_what_has_failed_is_left_out_with_all_that_needs_it_unless_asked_for(site, capsys):
    Studied(site.folder).put("train sft.s1", "failed")
    assert site.submit() == 0
    said = capsys.readouterr().err
    assert "1 failed or were cancelled and are left out, 7 need them" in said
    assert "train tiny.numbers.sft.s1" in said
    assert site.queued == ["prepare-1", "train-1", "generate-1", "train-2", "report"]
    assert {stage["folder"].split(".s")[1][0] for stage in frozen(site, "train-2")} == {"2"}
    site.forget_calls()
    assert site.submit("--retry-failed") == 0
    assert site.queued == [*ARRAYS, "report"]


# -- grid.sh


def grid_sh(folder, *arguments, **environment):
    """The script as SLURM would run it: a copy, in the folder that sbatch was called in."""
    copy = folder / "slurm_script"
    shutil.copy(GRID_SH, copy)
    search = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(folder)}
    return subprocess.run(
        ["bash", str(copy), *arguments], cwd=folder, env=search | environment, capture_output=True, text=True
    )


@pytest.fixture
def grid(tmp_path):
    """A folder with a project elsewhere, whose interpreter tells what it was called with."""
    (tmp_path / "bin").mkdir()
    project = tmp_path / "a project" / "of mine"
    (project / "slurm").mkdir(parents=True)
    (project / "slurm" / "submit.py").touch()
    (project / ".venv" / "bin").mkdir(parents=True)
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$PWD"; echo "$PYTHONPATH"; printf "%s\\n" "$@"\n')
    python.chmod(0o755)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "JobId=$4"; echo "   Command={project}/slurm/grid.sh m.yaml --only x"\n'
    )
    scontrol.chmod(0o755)
    return tmp_path, project


def test_outside_of_slurm_the_script_says_what_to_do():
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "slurm/grid.sh", "m.yaml"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "sbatch slurm/grid.sh m.yaml" in done.stderr
    assert "python -m experiments.run m.yaml" in done.stderr


def test_the_script_finds_the_project_where_sbatch_was_given_it(grid):
    folder, project = grid
    done = grid_sh(folder, "my study.yaml", "--only", "method=dpo", SLURM_JOB_ID="7")
    wanted = [str(folder), str(project), "-m", "slurm.submit", "my study.yaml", "--only", "method=dpo"]
    assert done.stdout.splitlines() == wanted, done.stderr


def test_the_script_takes_the_project_and_the_interpreter_that_it_is_told(grid):
    folder, project = grid
    moved = folder / "elsewhere"
    shutil.move(project, moved)
    (folder / "bin" / "scontrol").unlink()
    python = moved / ".venv" / "bin" / "python"
    shutil.move(python, folder / "interpreter")
    done = grid_sh(
        folder,
        SLURM_JOB_ID="7",
        GRID_ROOT=str(moved),
        GRID_PYTHON=str(folder / "interpreter"),
        PYTHONPATH="/more",
    )
    assert done.stdout.splitlines() == [str(folder), f"{moved}:/more", "-m", "slurm.submit"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GRID_ROOT": "/nowhere"}, "GRID_ROOT is /nowhere"),
        ({"GRID_PYTHON": "/no/python"}, "there is no /no/python; run 'make setup'"),
    ],
)
def test_what_the_script_cannot_find_it_names(grid, environment, words):
    done = grid_sh(grid[0], "m.yaml", SLURM_JOB_ID="7", **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout


def test_where_the_project_is_nowhere_the_script_says_so(grid):
    folder, project = grid
    shutil.rmtree(project)
    done = grid_sh(folder, "m.yaml", SLURM_JOB_ID="7")
    assert done.returncode == 2
    assert f"the project is not in {folder}; call sbatch there, or set GRID_ROOT" in done.stderr
    assert sys.executable not in done.stderr
