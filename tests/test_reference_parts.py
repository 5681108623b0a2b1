"""A reference folder is filled by one process, and an interrupted one is filled to its end."""

import errno
import fcntl
import json
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from processes import fork, until, wait
from tiny_training import add_dpo, make_experiment, random_pairs, tiny_llama, write_rows

from po import reference
from po.faults import InputFault
from po.files import write_json
from po.reference import compute
from po.references import lock
from po.references import values as values_module
from po.references.layout import Layout, batches
from po.references.sources import LiveReference
from po.references.values import reference_values

KINDS = ["logps", "entropy", "token_logps"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reference folder of several parts, each of two batches; nothing is computed yet."""
    parent = make_experiment(tmp_path, n_rows=30)
    tiny_llama().save_pretrained(parent / "model")
    write_json(parent / "model.json", {"path": "model"})
    add_dpo(tmp_path, parent)
    folder = tmp_path / "reference" / "sft--0"
    write_json(folder / "unit.json", json.loads((folder / "unit.json").read_text()) | {"kinds": KINDS})
    monkeypatch.setattr(values_module, "_TOKENS_A_BATCH", 80)
    monkeypatch.setattr(values_module, "_BATCHES_A_PART", 2)
    return folder


def before_asking(monkeypatch, act):
    """Calls ``act(n)`` before the model is asked for the n-th time, from 1; returns the counts."""
    calls, ask = [], LiveReference.values

    def counted(self, batch, asked):
        calls.append(len(calls) + 1)
        act(calls[-1])
        return ask(self, batch, asked)

    monkeypatch.setattr(LiveReference, "values", counted)
    return calls


def expected():
    """The values of all rows, computed without a break, and the number of batches."""
    rows = random_pairs(30)
    n_batches = len(list(batches(rows, Layout.of(rows, "unpaired"), 80, shared=True)))
    return reference_values(tiny_llama(), rows, "fp32", KINDS), n_batches


def stored(folder):
    return {kind: np.load(folder / f"{kind}.npy") for kind in KINDS}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for kind, values in wanted.items():
        np.testing.assert_array_equal(found[kind], values)


def interrupted(folder, at):
    """Fills the folder up to the ``at``-th question, at which the process is killed; returns the parts."""

    def work():
        with pytest.MonkeyPatch.context() as patch:
            before_asking(patch, lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == at else None)
            compute(folder)
        return 0

    assert wait(fork(work)) == -signal.SIGKILL
    assert not (folder / "reference.json").exists()
    return sorted(folder.glob("parts-*/*"))


def test_a_killed_pass_goes_on_where_it_stopped(folder, monkeypatch, capsys):
    whole, n_batches = expected()
    assert len(interrupted(folder, at=6)) == 2  # five batches were computed, four of them in two whole parts
    calls = before_asking(monkeypatch, lambda n: None)
    compute(folder)
    assert len(calls) == n_batches - 4 > 2
    assert "of 30 rows were computed before" in capsys.readouterr().err
    assert_same(stored(folder), whole)
    assert not list(folder.glob("parts-*"))


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"damaged!!", lambda b: b""]
)
def test_a_torn_part_is_computed_again(folder, monkeypatch, damage):
    whole, n_batches = expected()
    parts = interrupted(folder, at=7)
    assert len(parts) == 3
    parts[1].write_bytes(damage(parts[1].read_bytes()))
    parts[2].write_bytes(parts[0].read_bytes())  # whole, and of other rows
    calls = before_asking(monkeypatch, lambda n: None)
    compute(folder)
    assert len(calls) == n_batches - 2
    assert_same(stored(folder), whole)


def test_parts_of_other_weights_are_not_taken(folder, monkeypatch):
    interrupted(folder, at=4)
    other = tiny_llama()
    with torch.no_grad():
        other.get_output_embeddings().weight[5] += 1
    other.save_pretrained(folder.parents[1] / "cells" / "tiny.toy.sft.s1--0" / "model")
    compute(folder)
    assert_same(stored(folder), reference_values(other, random_pairs(30), "fp32", KINDS))
    assert not list(folder.glob("parts-*"))


def clock(act):
    """The module ``time``, but to sleep is to ``act()``, which takes no time."""
    return SimpleNamespace(sleep=lambda _: act(), monotonic=lambda: 0.0, strftime=time.strftime)


def test_of_two_at_once_one_computes_and_the_other_waits(folder, tmp_path, monkeypatch, capfd):
    go = tmp_path / "go"

    def work():
        with pytest.MonkeyPatch.context() as patch:
            before_asking(patch, lambda n: until(go.exists) if n == 3 else None)
            compute(folder)
        return 0

    child = fork(work)
    until(lambda: list(folder.glob("parts-*/0")))
    monkeypatch.setattr(reference, "load_start", lambda *_: pytest.fail("both computed"))
    monkeypatch.setattr(lock, "time", clock(lambda: go.touch()))  # this one waits now
    compute(folder)
    assert wait(child) == 0
    assert f"{folder}: pid {child} on " in (said := capfd.readouterr().err)
    assert said.count("computes these values; waiting for it") == 1
    assert (folder / "reference.json").is_file()


def test_who_waits_takes_over_from_one_that_is_killed(folder, monkeypatch):
    whole, n_batches = expected()

    def work():
        with pytest.MonkeyPatch.context() as patch:
            before_asking(patch, lambda n: until(lambda: False) if n == 5 else None)
            compute(folder)
        return 0

    child = fork(work)
    until(lambda: list(folder.glob("parts-*/1")))
    monkeypatch.setattr(lock, "time", clock(lambda: os.kill(child, signal.SIGKILL)))
    calls = before_asking(monkeypatch, lambda n: None)
    compute(folder)
    assert wait(child) == -signal.SIGKILL
    assert len(calls) == n_batches - 4
    assert_same(stored(folder), whole)


def test_a_pass_that_ended_before_its_parts_were_removed_is_cleaned_up(folder, monkeypatch):
    compute(folder)
    (folder / "parts-0123456789abcdef").mkdir()
    monkeypatch.setattr(reference, "load_start", lambda *_: pytest.fail("the model was loaded again"))
    compute(folder)
    assert not list(folder.glob("parts-*"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_its_row_and_never_kept(folder, kind, value):
    """The second completion of the eighth row that is computed, which stands in the third part."""
    rows = [row | {"id": f"p{i}"} for i, row in enumerate(random_pairs(30))]
    write_rows(folder.parents[1] / "data" / "tiny.toy--0" / "train.jsonl", rows)
    order = [i for batch in batches(rows, Layout.of(rows, "unpaired"), 80, shared=True) for i in batch]
    spoiled, ask = rows[order[8]]["rejected_ids"], LiveReference.values

    def answer(self, batch, asked):
        found = ask(self, batch, asked)
        for at, (ids, mask) in enumerate(zip(batch["input_ids"], batch["completion_mask"], strict=True)):
            if ids[mask].tolist() == spoiled:
                found[kind][(at, 1) if kind == "token_logps" else at] = value
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveReference, "values", answer)
        with pytest.raises(
            InputFault, match=f"row 'p{order[8]}': under the reference model {kind} is {value},"
        ):
            compute(folder)
    assert not (folder / "reference.json").exists()
    assert list(folder.glob("parts-*/*")), "what was right is kept"
    compute(folder)
    assert all(np.isfinite(values).all() for values in stored(folder).values())


def test_a_model_with_a_broken_embedding_is_no_reference_and_padding_is_no_fault(folder):
    model = tiny_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    model.save_pretrained(folder.parents[1] / "cells" / "tiny.toy.sft.s1--0" / "model")
    with pytest.raises(InputFault, match="logps is nan, .* NaN or infinity in the model's weights"):
        compute(folder)
    lists = [{"prompt_ids": [5], "candidates_ids": [[6, 2]] * count} for count in (3, 2)]
    found = reference_values(tiny_llama(), lists, "fp32", form="ranked")["logps"]
    assert np.isnan(found).tolist() == [[False, False, False], [False, False, True]]


def test_without_locks_on_the_file_system_the_work_is_done_all_the_same(folder, monkeypatch, capsys):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    compute(folder)
    assert "no locks on this file system (No locks available)" in capsys.readouterr().err
    assert (folder / "reference.json").is_file()


def test_rows_of_one_prompt_are_computed_together_and_it_is_counted_once():
    def row(prompt, *lengths):
        return {"prompt_ids": [prompt] * 10, "candidates_ids": [[3] * length for length in lengths]}

    rows = [row(4, 2, 3), row(5, 9, 9), row(4, 1, 1), row(6, 4, 4), row(4, 5, 6)]
    layout = Layout.of(rows, "ranked")
    assert list(batches(rows, layout, 28, shared=True)) == [[1], [0, 2, 4], [3]]  # 10 + 18, 10 + 18, 10 + 8
    assert list(batches(rows, layout, 27, shared=True)) == [[1], [0, 2], [4], [3]]
    assert list(batches(rows, layout, 1, shared=True)) == [[1], [0], [2], [4], [3]]


@pytest.mark.parametrize("form", ["ranked", "unpaired"])
def test_rows_with_few_and_many_completions_keep_their_places(form):
    generator = np.random.default_rng(0)

    def ids(low, high):
        return generator.integers(3, 60, generator.integers(low, high)).tolist()

    lists = [
        {"prompt_ids": ids(1, 5), "candidates_ids": [ids(1, 8) for _ in range(2 + i % 3)]} for i in range(9)
    ]
    pairs = [
        {"prompt_ids": ids(1, 5)} | {name: ids(1, 8) for name in names}
        for names in (("chosen_ids", "rejected_ids"), ("completion_ids",)) * 4
    ]
    rows, model = (lists if form == "ranked" else pairs), tiny_llama()
    together = reference_values(model, rows, "fp32", ("logps", "token_logps"), form)
    assert np.isnan(together["logps"]).any()
    start = 0
    for i, row in enumerate(rows):
        alone = reference_values(model, [row], "fp32", ("logps", "token_logps"), form)
        count, end = alone["logps"].shape[1], start + len(alone["token_logps"])
        np.testing.assert_allclose(together["logps"][i, :count], alone["logps"][0], rtol=1e-5, atol=1e-5)
        assert np.isnan(together["logps"][i, count:]).all()
        np.testing.assert_allclose(
            together["token_logps"][start:end], alone["token_logps"], rtol=1e-4, atol=1e-5
        )
        start = end
    assert start == len(together["token_logps"])
