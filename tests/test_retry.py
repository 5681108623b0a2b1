"""What experiments.retry forgets, and what it leaves."""

import pytest
from stage_states import ERROR, Studied

from experiments import retry
from experiments.claim import Claim
from experiments.stage_status import read_status


@pytest.fixture
def study(tmp_path):
    found = Studied(tmp_path)
    found.finish("train dpo.s1", "train dpo.s2", "score sft.s1", "score sft.s2")
    for label in ("train dpo.s1", "train dpo.s2", "score sft.s1"):
        found.put(label, "failed", attempt=3, error=ERROR)
    found.put("score sft.s2", "interrupted", attempt=2)
    return found


def failed(study):
    labels = ("train dpo.s1", "train dpo.s2", "score sft.s1")
    return [label for label in labels if read_status(study.place(label), label.partition(" ")[0])]


def test_failed_stages_have_all_their_attempts_again(study, capsys):
    assert retry.main([str(study.root), "--failed"]) == 0
    assert failed(study) == []
    text = capsys.readouterr().out
    assert "reset  train tiny.numbers.dpo.s1" in text and "3 stages have all their attempts again" in text
    assert "experiments.run" in text and "sbatch slurm/grid.sh" in text


def test_nothing_but_failures_is_touched(study):
    before = {path: path.read_text() for path in study.root.rglob("status.*.json")}
    assert retry.main([str(study.root), "--failed"]) == 0
    kept = {path: path.read_text() for path in study.root.rglob("status.*.json")}
    assert len(kept) == len(before) - 3 and kept.items() <= before.items()
    assert read_status(study.place("score sft.s2"), "score").state == "interrupted"


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ("seed=1,method=dpo", ["train dpo.s2", "score sft.s1"]),
        ("stage=score", ["train dpo.s1", "train dpo.s2"]),
        ("method=sft", ["train dpo.s1", "train dpo.s2"]),
        ("method=dpo,stage=generate", ["train dpo.s1", "train dpo.s2", "score sft.s1"]),
    ],
)
def test_only_what_was_selected_is_reset(study, only, left):
    assert retry.main([str(study.root), "--failed", "--only", only]) == 0
    assert failed(study) == left


def test_what_a_selected_cell_needs_is_reset_with_it(study):
    study.put("train sft.s1", "failed")
    assert retry.main([str(study.root), "--failed", "--only", "method=dpo,seed=1"]) == 0
    assert read_status(study.place("train sft.s1"), "train") is None


def test_an_axis_of_the_grid_selects(tmp_path):
    study = Studied(tmp_path, methods__dpo__grid={"beta": [0.1, 0.2]}, methods__dpo__params={})
    labels = [job["label"].replace("tiny.numbers.", "") for job in study.plan.jobs if job["stage"] == "train"]
    for label in labels:
        study.put(label, "failed")
    assert retry.main([str(study.root), "--failed", "--only", "params.beta=0.2,stage=train"]) == 0
    left = [label for label in labels if read_status(study.place(label), "train")]
    assert left == ["train dpo.beta0.1.s1", "train dpo.beta0.1.s2"]


def test_a_stage_that_runs_is_left_alone_and_named(study, capsys):
    with Claim(study.place("train dpo.s1"), "train"):
        assert retry.main([str(study.root), "--failed"]) == 1
    assert failed(study) == ["train dpo.s1"]
    found = capsys.readouterr()
    assert "train tiny.numbers.dpo.s1 runs, so it is left alone" in found.err and "2 stages" in found.out


def test_without_failed_it_says_what_there_is_and_does_nothing(study, capsys):
    assert retry.main([str(study.root)]) == 0
    found = capsys.readouterr().out
    assert "3 stages have failed; add --failed" in found and "train tiny.numbers.dpo.s2" in found
    assert len(failed(study)) == 3


def test_what_is_lost_or_interrupted_needs_no_retry(study, capsys):
    assert retry.main([str(study.root), "--failed"]) == 0
    study.put("train dpo.s1", "running")
    assert retry.main([str(study.root), "--failed"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "nothing to retry" in said and "2 are lost or interrupted, the next run goes on with them" in said
    assert read_status(study.place("train dpo.s1"), "train").state == "running"


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("method=dop", "did you mean 'dpo'"),
        ("colour=red", "cannot be matched"),
        ("stage=trian", "did you mean 'train'"),
    ],
)
def test_a_wrong_selector_is_refused(study, capsys, only, said):
    assert retry.main([str(study.root), "--failed", "--only", only]) == 2
    assert said in capsys.readouterr().err
    assert len(failed(study)) == 3


def test_a_folder_without_a_plan_is_refused(tmp_path, capsys):
    assert retry.main([str(tmp_path), "--failed"]) == 2
    assert "holds no experiment" in capsys.readouterr().err
