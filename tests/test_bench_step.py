"""benchmarks/step.py at toy size: sides agree, figures come out, and a side that differs is told."""

import contextlib
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import sides, step, step_cuda, step_memory, step_rows, table, trl_steps, workloads
from benchmarks.our_steps import our_side, reference_of, with_reference
from benchmarks.padded_twin import twin_dpo

TOY = workloads.Shape("toy", 64, 96, 2, 2, 120)
SHORT = workloads.Workload("MT", 12, 6)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(step, "MODELS", types.MappingProxyType({"toy": TOY}))
    monkeypatch.setattr(step, "WORKLOADS", types.MappingProxyType({"MT": SHORT}))
    monkeypatch.setattr(step, "peak_flops", lambda: 1e12)
    # these would hold for all tests behind, whose forked children can compute with one thread only
    monkeypatch.setattr(step, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(sides, "as_glibc_has_it", contextlib.nullcontext)


def test_all_figures_of_a_toy_come_out_and_sides_agree(toy):
    rows = step.measure(("toy",), ("MT",), n_batches=2, threads=1)
    assert {len(row) for row in rows} == {4}
    begin = {row[0][:2] for row in rows}
    assert {"G2", "G3", "G4", "G8"} <= begin
    differences = [row for row in rows if "greatest difference" in row[0]]
    assert len(differences) == 8  # loss and gradient: two methods, two orders
    assert all(row[3] == "equal" and float(row[1]) <= step_rows.EXACT for row in differences)
    assert sum(float(row[1]) > 0 for row in differences) >= 4  # different code did the work
    assert sum("speed-ups off" in row[0] for row in rows) == 2  # time and share
    ratios = [float(row[1].split("x")[0]) for row in rows if "ours with stored" in row[0]]
    assert ratios and all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)


def test_the_exit_status_tells_of_sides_that_differ(toy, monkeypatch, capsys):
    monkeypatch.setattr(step, "CPU_MODELS", ("toy",))
    monkeypatch.setattr(
        step, "_compared", lambda bench: [table.equal_within("greatest difference", 1e-5, 1e-4)]
    )
    assert step.main(["--quick", "--threads", "1"]) == 0
    monkeypatch.setattr(
        step, "_compared", lambda bench: [table.equal_within("greatest difference", 1e-3, 1e-4)]
    )
    assert step.main(["--quick", "--threads", "1"]) == 1
    assert "greatest difference (1.0e-03, must be <= 0.0001)" in capsys.readouterr().err


def test_another_reference_is_seen_as_a_difference():
    batches = workloads.shuffled_and_sorted(SHORT, TOY.vocabulary, 1)[1]
    policy = TOY.build()
    reference, other = reference_of(policy, seed=1), reference_of(policy, seed=2)
    found = sides.compare(
        [
            our_side("one", policy, with_reference(batches, reference), "dpo"),
            our_side("same", policy, with_reference(batches, reference), "dpo", live=reference),
            our_side("other", policy, with_reference(batches, other), "dpo"),
        ],
        1,
    )
    assert found["same"].gradient_gap < 1e-5
    assert found["other"].gradient_gap > 1e-4
    assert found["other"].loss_gap > 1e-4


def test_the_padded_twin_is_dpo_in_all_its_forms():
    batches = workloads.shuffled_and_sorted(SHORT, TOY.vocabulary, 2)[0]
    policy = TOY.build()
    reference = reference_of(policy)
    rows = with_reference(batches, reference)
    collated = step_rows.collated(rows, "dpo")
    made = [
        our_side("ours", policy, rows, "dpo"),
        twin_dpo("stored", policy, collated, checkpointing=False),
        twin_dpo("checkpointed", policy, collated, checkpointing=True),
        twin_dpo("live", policy, collated, live=reference, checkpointing=False),
        twin_dpo("full", policy, collated, checkpointing=False, full_logits=True),
    ]
    for entry in sides.compare(made, 2).values():
        assert entry.loss_gap < 1e-5
        assert entry.gradient_gap < 1e-5


def test_the_ratios_of_a_gpu_come_out_without_trl(monkeypatch):
    monkeypatch.setattr(step_rows, "TRL_IS_HERE", False)
    monkeypatch.setattr(step_cuda, "WORKLOADS", types.MappingProxyType({"MT": SHORT}))
    monkeypatch.setattr(step_cuda, "peak_flops", lambda device, dtype: 1e12)
    rows = step_cuda.ratios(1, TOY, device="cpu")
    judged = [row for row in rows if row[0].startswith("G12") and row[2]]
    assert [row[2] for row in judged] == [">= 2.6x", ">= 1.4x"]
    assert "padded twin" in judged[0][0]
    assert all(row[3] == "equal" for row in rows if "greatest difference" in row[0])


def test_the_profile_names_operators_of_our_step():
    found = step_rows.profile(step_rows.Bench(step_rows.Setting(TOY, SHORT, 1)), rows=40)
    assert "aten::mm" in found and "Self CPU" in found


def test_memory_of_a_step_is_what_it_holds_at_its_peak():
    shape = "Shape('toy', 256, 512, 1, 2, 20_000)"
    code = (
        "from benchmarks import step_memory, workloads as w\n"
        f"w.MODELS, w.WORKLOADS = {{'toy': w.{shape}}}, {{'MT': w.Workload('MT', 12, 6)}}\n"
        "print(step_memory.measured('ours', 'toy', 'MT'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | step_memory.ENVIRONMENT,
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    gradients = 2 * 4 * 256 * 20_000  # of head and embeddings
    assert 0.9 * gradients < int(done.stdout.split()[-1]) < 10 * gradients


def test_needed_flops_count_the_prompt_once_and_each_query_with_its_keys():
    row = {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8, 9, 1]}
    attended = 3 + (2 + 1) + (3 * 2 + 6)
    expected = 6 * TOY.body * 6 + 6 * TOY.head * 4 + 12 * 2 * 64 * attended
    assert workloads.needed_flops(TOY, [row]) == expected
    layers = TOY.build().model.layers
    assert TOY.body == sum(p.numel() for p in layers.parameters() if p.dim() == 2)


def test_sorted_batches_have_less_padding_and_both_kinds_come_from_one_pool():
    shuffled, ordered = workloads.shuffled_and_sorted(workloads.WORKLOADS["summ"], 9_600, 5)
    assert [len(batch) for batch in (*shuffled, *ordered)] == [8] * 10

    def spread(batch):
        lengths = [workloads.longest(row) for row in batch]
        return max(lengths) / min(lengths)

    assert max(map(spread, ordered)) < min(map(spread, shuffled))
    assert all(workloads.longest(row) <= workloads.LONGEST for batch in ordered for row in batch)


def test_trl_reads_the_texts_as_our_tokens():
    batches = [workloads.random_rows(SHORT, TOY.vocabulary, 2, seed=3)]
    policy = TOY.build()
    trl_steps.trl_simpo("TRL", policy, batches, checkpointing=False)
    broken = [[row | {"chosen_ids": [workloads.EOS, *row["chosen_ids"]]} for row in batches[0]]]
    with pytest.raises(RuntimeError, match="other tokens"):
        trl_steps.trl_simpo("TRL", policy, broken, checkpointing=False)


def test_the_table_pads_rows_without_a_goal(capsys):
    table.print_table([("figure a", "1"), table.at_least("b", 2.0, 3.0)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["figure", "a", "1"]
    assert lines[2].split() == ["b", "2.00x", ">=", "3x", "NOT", "MET"]
