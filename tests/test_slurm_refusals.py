"""What is said where something is wrong, and that nothing is queued by halves."""

import pytest
from manifests import changed, write
from slurm_site import ALL_COMMENTS, ARRAYS, SQUEUE, option

from experiments.claim import Claim


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
