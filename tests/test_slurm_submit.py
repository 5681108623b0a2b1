"""What is asked of SLURM, the first time and once more; SLURM's programs are scripts here."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

from manifests import changed, write
from slurm_site import ARRAYS, option, tree
from stage_states import Studied


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
