"""Which folders experiments.clean takes for orphans, and which it never touches."""

import json
import os
import shutil

import pytest
from manifests import changed, write
from processes import fork, until, wait
from stage_states import Studied, queue_of, slurm

from experiments import clean, slurm_queue
from experiments.claim import Claim
from experiments.loading import load

HASH = "0123456789"


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Every test asks its own squeue."""
    monkeypatch.setattr(slurm_queue, "_memory", slurm_queue._Memory())


@pytest.fixture
def study(tmp_path):
    found = Studied(tmp_path)
    found.finish()
    return found


@pytest.fixture
def orphan(study):
    folder = study.root / "cells" / f"tiny.numbers.dpo.s3--{HASH}"
    folder.mkdir()
    (folder / "weights").write_bytes(b"x" * 2500)
    return folder


def folders(study):
    return {path for section in clean.SECTIONS for path in (study.root / section).iterdir()}


def orphans(study, *options, code=0):
    assert clean.main([str(study.root), "--orphans", *options]) == code


def test_folders_of_the_plan_are_no_orphans(study, capsys):
    before = folders(study)
    orphans(study, "--yes")
    assert folders(study) == before
    assert "no orphans" in capsys.readouterr().out


def test_orphans_are_listed_with_size_and_age_and_stay(study, orphan, capsys):
    for path in (orphan / "weights", orphan):
        os.utime(path, (0, os.stat(path).st_mtime - 7200))
    orphans(study)
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["2.5", "KB", "2", "h", "00", "min", "old", str(orphan)]
    assert "in 1 folders that can go" in text and "--yes removes them" in text
    assert (orphan / "weights").is_file()


def test_yes_removes_them_and_nothing_else(study, orphan, capsys):
    before = folders(study)
    orphans(study, "--yes")
    assert folders(study) == before - {orphan}
    assert "removed 1 folders" in capsys.readouterr().out


def test_what_a_change_of_the_manifest_leaves_over_is_found_in_all_sections(study, tmp_path):
    before = folders(study)
    data = changed(models__tiny__from_scratch__layers=3, tasks__numbers__max_prompt_length=60)
    load(write(tmp_path, data), tmp_path / "runs").write_plan()
    orphans(study, "--yes")
    assert not before & folders(study) and {path.parent.name for path in before} == set(clean.SECTIONS)


def test_a_folder_under_its_older_name_is_found_by_its_hash(study):
    old = study.place("train dpo.s1")
    new = old.with_name(f"older.name--{old.name.rpartition('--')[2]}")
    old.rename(new)
    orphans(study, "--yes")
    assert new.is_dir()


def test_a_folder_in_which_a_process_works_is_kept(study, orphan, capsys):
    def work():
        with Claim(orphan, "train"):
            until((orphan / "end").exists)
        return 0

    child = fork(work)
    until((orphan / "claim.train").exists)
    orphans(study, "--yes")
    assert (orphan / "weights").is_file()
    assert "kept: train runs: pid" in capsys.readouterr().out
    (orphan / "end").touch()
    assert wait(child) == 0
    orphans(study, "--yes")
    assert not orphan.exists()


def test_a_process_that_was_killed_keeps_nothing(study, orphan):
    def die():
        Claim(orphan, "train").acquire()
        os._exit(9)

    assert wait(fork(die)) == 9
    assert (orphan / "claim.train").exists()
    orphans(study, "--yes")
    assert not orphan.exists()


def test_a_claim_taken_after_the_look_keeps_the_folder(study, orphan, capsys, monkeypatch):
    with Claim(orphan, "train"):
        monkeypatch.setattr(clean, "_user", lambda folder: "")
        orphans(study, "--yes", code=1)
    assert (orphan / "weights").is_file()
    assert "is kept" in capsys.readouterr().err


def test_what_the_queue_holds_work_for_is_kept(study, orphan, capsys, monkeypatch, tmp_path):
    study.submit("1", {"train-1": ("7", [["train dpo.s1"]])})
    path = study.root / "submissions" / "1" / "train-1.jsonl"
    line = json.loads(path.read_text())
    line["stages"][0]["folder"] = f"cells/{orphan.name}"
    path.write_text(json.dumps(line) + "\n")
    slurm(monkeypatch, tmp_path, squeue=queue_of(j7_0="PENDING|Priority"))
    orphans(study, "--yes")
    assert orphan.is_dir() and "SLURM's queue holds work" in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["Priority", "DependencyNeverSatisfied"])
def test_what_queued_work_reads_is_kept(study, orphan, capsys, monkeypatch, tmp_path, reason):
    study.submit("1", {"train-1": ("7", [["train dpo.s1"]])})
    path = study.root / "submissions" / "1" / "train-1.jsonl"
    line = json.loads(path.read_text())
    line["stages"][0]["needs"] = [[f"cells/{orphan.name}", "train", "abc"]]
    path.write_text(json.dumps(line) + "\n")
    slurm(monkeypatch, tmp_path, squeue=queue_of(j7_0=f"PENDING|{reason}"))
    orphans(study, "--yes")
    assert orphan.is_dir() and "SLURM's queue holds work that reads it" in capsys.readouterr().out


def test_where_the_queue_cannot_be_asked_nothing_is_removed(study, orphan, capsys, monkeypatch, tmp_path):
    study.submit("1", {"train-1": ("7", [["train dpo.s1"]])})
    slurm(monkeypatch, tmp_path, squeue="exit 1")
    for options, code in (((), 0), (("--yes",), 1)):
        orphans(study, *options, code=code)
        assert "SLURM's queue could not be asked" in capsys.readouterr().err
    assert orphan.is_dir()


def test_while_it_is_not_known_what_was_submitted_nothing_is_removed(study, orphan, capsys):
    study.submit("1", {})
    (study.root / "submissions" / "1" / "jobs.json").write_text("{")
    orphans(study, "--yes", code=1)
    assert orphan.is_dir() and "delete the submission's folder" in capsys.readouterr().err


@pytest.mark.parametrize(("label", "stage"), [("train dpo.s1", "train"), (None, "submit")])
def test_while_a_stage_of_the_experiment_is_held_nothing_is_removed(study, orphan, capsys, label, stage):
    folder = study.place(label) if label else study.root
    with Claim(folder, stage):
        for options, code in (((), 0), (("--yes",), 1)):
            orphans(study, *options, code=code)
            assert f"{folder}: {stage} runs: pid {os.getpid()}" in capsys.readouterr().err
    assert orphan.is_dir()
    orphans(study, "--yes")
    assert not orphan.exists()


@pytest.mark.parametrize("name", ["mine", "mine--too", f"a--{HASH}x", f"--{HASH}", "a--0123"])
def test_what_the_suite_has_not_named_is_left(study, name):
    (study.root / "cells" / name).mkdir()
    (study.root / "cells" / f"file--{HASH}").touch()
    orphans(study, "--yes")
    assert (study.root / "cells" / name).is_dir() and (study.root / "cells" / f"file--{HASH}").is_file()


def test_nothing_is_removed_through_links(study, orphan, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(orphan, elsewhere / orphan.name)
    (study.root / "cells" / f"link--{HASH}").symlink_to(elsewhere / orphan.name)
    (orphan / "inside").symlink_to(elsewhere)
    shutil.rmtree(study.root / "reference")
    (study.root / "reference").symlink_to(elsewhere)
    orphans(study, "--yes")
    assert not orphan.exists()
    assert (elsewhere / orphan.name / "weights").is_file()
    assert (study.root / "cells" / f"link--{HASH}").is_symlink()


def test_what_an_interrupted_removal_left_is_removed_and_not_taken_for_a_cell(study, orphan, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            clean.main([str(study.root), "--orphans", "--yes"])
    (left,) = (study.root / "cells").glob(".removing-*")
    assert (left / "weights").is_file() and "--" not in left.name and not orphan.exists()
    orphans(study, "--yes")
    assert not left.exists()


def test_a_folder_that_cannot_be_removed_is_named_and_the_others_go(study, orphan, capsys, monkeypatch):
    other = orphan.with_name(f"other--{HASH}")
    other.mkdir()
    true_removal = shutil.rmtree

    def refuse(path):
        if (path / "weights").exists():
            raise PermissionError(13, "Permission denied", str(path))
        true_removal(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    orphans(study, "--yes", code=1)
    found = capsys.readouterr()
    assert f"cannot remove {orphan}: no permission" in found.err and "removed 1 folders" in found.out
    assert not other.exists()


def test_without_a_plan_nothing_is_removed(study, orphan, capsys):
    (study.root / "plan.json").unlink()
    orphans(study, "--yes", code=2)
    assert orphan.is_dir() and "holds no experiment" in capsys.readouterr().err


def test_a_plan_that_names_nothing_removes_nothing(study, orphan, capsys):
    (study.root / "plan.json").write_text('{"schema": 1, "name": "small", "cells": [], "jobs": []}')
    orphans(study, "--yes", code=2)
    assert orphan.is_dir() and "names no folder" in capsys.readouterr().err


def test_without_orphans_it_says_what_can_be_cleaned(study, orphan, capsys):
    assert clean.main([str(study.root), "--yes"]) == 2
    assert orphan.is_dir() and "--orphans" in capsys.readouterr().err
