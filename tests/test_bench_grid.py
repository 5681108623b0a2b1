"""The grid benchmark at toy size: all sides run, compute the same, and the table says so."""

import dataclasses
import json
import os

import pytest

pytest.importorskip("trl")

from benchmarks import grid, grid_sides
from benchmarks.grid_sides import Outcome, run_ours, run_trl
from benchmarks.grid_work import CONTENDERS, write_work
from benchmarks.workloads import Shape, Workload

SHAPE = Shape("toy", 32, 48, 1, 2, 200)
TOY = Workload("toy", 12, 6)


@pytest.fixture
def work(tmp_path):
    return write_work(tmp_path, SHAPE, TOY, 16)


def test_the_grid_has_four_methods_with_a_reference_and_four_without():
    assert [each.trainer == "dpo" for each in CONTENDERS] == [True] * 4 + [False] * 4


def test_both_orders_hold_the_same_pairs_and_the_second_goes_by_length(work):
    drawn, ordered = (path.read_text().splitlines() for path in (work.rows, work.sorted_rows))
    assert sorted(drawn) == sorted(ordered) and drawn != ordered
    lengths = []
    for row in map(json.loads, ordered):
        lengths.append(len(row["prompt"].split()) + max(len(row[s].split()) for s in ("chosen", "rejected")))
    assert lengths == sorted(lengths)


def test_pairs_that_fill_no_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="12 pairs are no whole batches of 8"):
        write_work(tmp_path, SHAPE, TOY, 12)


def test_a_study_and_trainings_by_trl_give_the_same_losses(tmp_path):
    some = tuple(each for each in CONTENDERS if each.name in ("ipo", "orpo"))
    work = write_work(tmp_path, SHAPE, TOY, 16, some)
    ours, theirs = run_ours(work), run_trl(work, tuned=False)
    assert set(ours.losses) == {"ipo", "orpo"}
    assert all(len(losses) == work.n_steps == 2 for losses in theirs.losses.values())
    assert grid.loss_gap(ours, theirs) < 1e-4
    assert ours.losses["ipo"][1] != ours.losses["ipo"][0]  # it has learnt between the two
    for side in (ours, theirs):
        assert 0 < side.steps_wall_s < side.wall_s
        assert all(seconds >= 0 for seconds in side.parts.values())


def test_a_tuned_training_is_told_to_be_fast(work, monkeypatch):
    asked = []

    def trained(work, side, contender, rows, settings):
        asked.append((side, contender.name, rows, settings))
        slow = settings["gradient_checkpointing"] == (contender.trainer == "dpo")
        facts = {"losses": [1.0], "step_s": [2.0 if slow else 1.0], "part_s": {"train": 3.0}}
        return 5.0, facts

    monkeypatch.setattr(grid_sides, "_train", trained)
    found = run_trl(work, tuned=True)
    assert found.wall_s == 8 * 5.0  # what finds the faster way out is not counted
    timed = {name: (rows, settings) for side, name, rows, settings in asked if side == "tuned"}
    assert set(timed) == {each.name for each in CONTENDERS}
    for contender in CONTENDERS:
        rows, settings = timed[contender.name]
        referenced = contender.trainer == "dpo"
        assert rows == work.sorted_rows and settings["train_sampling_strategy"] == "sequential"
        assert settings.get("precompute_ref_log_probs", False) == referenced
        assert settings["gradient_checkpointing"] == (not referenced)


def test_the_table_holds_goals_against_what_was_measured():
    losses, steps = {"dpo": [0.7, 0.6]}, {"dpo": [1.0, 1.0]}
    found = {
        "ours": Outcome(4.0, losses, steps, at_once=2),
        "TRL as shipped": Outcome(22.0, losses, {"dpo": [4.0, 4.0]}),
        "TRL tuned": Outcome(10.0, losses, {"dpo": [2.0, 2.0]}),
    }
    rows = {figure: (value, met) for figure, value, _, met in grid.rows_of(found, "toy")}
    assert rows["grid, toy: TRL as shipped / ours, everything"] == ("5.50x", "met")
    assert rows["grid, toy: TRL tuned / ours, everything"] == ("2.50x", "NOT MET")
    assert rows["grid: TRL as shipped / ours, steps alone"] == ("8.00x", "")
    assert rows["grid: losses of all steps, TRL as shipped - ours"][1] == "equal"
    apart = dataclasses.replace(found["ours"], losses={"dpo": [0.7, 0.61]})
    assert grid.loss_gap(apart, found["TRL as shipped"]) == pytest.approx(0.01)
    broken = dataclasses.replace(found["ours"], losses={"dpo": [0.7, float("nan")]})
    assert grid.loss_gap(broken, found["TRL as shipped"]) == float("inf")


def test_a_process_that_fails_is_named_with_what_it_said(tmp_path):
    missing = str(tmp_path / "job.json")
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks.grid_trl .*ended with 1.*No such file"):
        grid_sides._command(["benchmarks.grid_trl", missing], os.environ)
