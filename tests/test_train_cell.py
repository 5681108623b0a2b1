"""A cell is trained, published and not trained again; what cannot be trained is refused."""

import json
import time

import pytest
import torch
from tiny_training import (
    TRAINING,
    add_dpo,
    change_training,
    make_cell,
    make_experiment,
    random_pairs,
    read_log,
    write_rows,
)
from trained_cells import assert_equal_weights, run, weights

from po.models.loading import load_tokenizer
from po.rows import TEXT_IDS, read_rows
from po.settings import read_settings
from po.train import start_model


@pytest.fixture
def sft(tmp_path):
    return make_experiment(tmp_path / "runs")


def test_sft_then_dpo_from_it(sft):
    assert run(sft) == 0
    assert json.loads((sft / "model.json").read_text()) == {"path": "model"}
    result = json.loads((sft / "train.json").read_text())
    assert (result["method"], result["steps"], result["rows"], result["resumed"]) == ("sft", 6, 20, False)
    assert not (sft / "attempts").exists()
    log = [row for row in read_log(sft) if "loss" in row]
    assert log[-1]["step"] == 6 and log[-1]["loss"] < log[0]["loss"]
    dpo = add_dpo(sft.parents[1], sft)
    assert run(dpo) == 0
    log = [row for row in read_log(dpo) if "loss" in row]
    assert log[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["rewards/margins"] > 0.001
    changed = weights(dpo)
    assert any(not torch.equal(tensor, changed[name]) for name, tensor in weights(sft).items())


def test_what_is_trained_is_not_trained_again(sft):
    run(sft)
    before = {path: path.stat().st_mtime_ns for path in sft.rglob("*")}
    start = time.perf_counter()
    assert run(sft) == 0
    assert time.perf_counter() - start < 0.5
    assert {path: path.stat().st_mtime_ns for path in sft.rglob("*")} == before


def test_other_settings_are_trained_anew(sft):
    run(sft)
    cell = json.loads((sft / "cell.json").read_text())
    cell["train"]["training"]["max_steps"] = 1
    (sft / "cell.json").write_text(json.dumps(cell | {"hashes": {"train": "another"}}))
    assert run(sft) == 0
    assert json.loads((sft / "train.json").read_text())["steps"] == 1


def test_the_log_ends_with_the_last_step(sft):
    change_training(sft, max_steps=5, logging_steps=4)
    run(sft)
    assert [row["step"] for row in read_log(sft) if "loss" in row] == [1, 4, 5]


def test_the_groups_of_similar_length_do_not_change_supervised_training(sft, monkeypatch):
    change_training(sft, global_batch_size=20, per_device_batch_size=20, max_steps=3)
    run(sft)
    grouped = weights(sft)
    (sft / "model.json").unlink()
    monkeypatch.setattr("po.engine.lengths.MOST_GROUPS", 1)
    run(sft)
    for name, tensor in weights(sft).items():
        assert torch.allclose(tensor, grouped[name], rtol=1e-3, atol=1e-5), name


def refusal(folder, capsys):
    capsys.readouterr()
    assert run(folder) == 65
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert not (folder / "model.json").exists()
    return error


def test_a_parent_without_a_model_is_refused(sft, capsys):
    dpo = add_dpo(sft.parents[1], sft)
    assert "tiny.toy.sft.s1--0 is not trained yet; run: python -m experiments.run" in refusal(dpo, capsys)


def test_empty_data_are_refused(sft, capsys):
    write_rows(sft.parents[1] / "data" / "tiny.toy--0" / "sft.jsonl", [])
    assert "sft.jsonl has no rows; loosen what is filtered out" in refusal(sft, capsys)


def test_missing_data_are_refused(sft, capsys):
    (sft.parents[1] / "data" / "tiny.toy--0" / "sft.jsonl").unlink()
    assert "sft.jsonl is missing" in refusal(sft, capsys)


def test_a_row_without_ids_is_refused_by_its_line(sft, capsys):
    rows = [row | {"completion_ids": row["chosen_ids"]} for row in random_pairs(2)]
    write_rows(sft.parents[1] / "data" / "tiny.toy--0" / "sft.jsonl", [*rows, random_pairs(1)[0]])
    assert "sft.jsonl:3: completion_ids is missing" in refusal(sft, capsys)


def test_a_batch_that_cannot_be_split_is_refused(sft, capsys):
    change_training(sft, per_device_batch_size=3)
    assert "global_batch_size 8 is not divisible by 1 processes x per_device_batch_size 3" in refusal(
        sft, capsys
    )


def test_a_missing_folder_is_refused(tmp_path, capsys):
    assert "cell.json is missing; cells are made by" in refusal(tmp_path / "nowhere", capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "simp0"}, "Unknown method 'simp0'; did you mean 'simpo'"),
        ({"params": {"beta": 0.1}}, "sft has no parameter 'beta'"),
        ({"training": {**TRAINING, "epoch": 1}}, "train.training has unknown or missing keys: epoch"),
        ({"method": "cpo"}, "train.params has unknown or missing keys: beta, eps, nll_weight"),
        (
            {"method": "dpo", "params": {"beta": 0.1, "margin": 0.0, "reference_free": False}},
            "reference is null",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(sft, change, message, capsys):
    cell = json.loads((sft / "cell.json").read_text())
    cell["train"] |= change
    (sft / "cell.json").write_text(json.dumps(cell))
    assert message in refusal(sft, capsys)


def test_a_missing_key_of_the_cell_is_named(sft, capsys):
    cell = json.loads((sft / "cell.json").read_text())
    del cell["hashes"]
    (sft / "cell.json").write_text(json.dumps(cell))
    assert "cell.json: key 'hashes' is missing" in refusal(sft, capsys)


def test_an_untrained_cell_publishes_the_weights_that_training_starts_from(sft):
    root = sft.parents[1]
    base = make_cell(root, "tiny.toy.base.s1--0", None)
    assert run(base) == 0
    assert json.loads((base / "model.json").read_text()) == {"path": "model"}
    assert json.loads((base / "train.json").read_text())["steps"] == 0
    assert (base / "model" / "tokenizer.json").is_file()
    change_training(sft, max_steps=1, learning_rate=0.0)
    run(sft)
    assert_equal_weights(weights(base), weights(sft))


def test_an_untrained_model_of_a_hub_is_a_pointer(sft):
    base = make_cell(sft.parents[1], "hub.toy.base.s1--0", None)
    cell = json.loads((base / "cell.json").read_text())
    cell["model"] |= {"id": "org/name", "revision": "abc", "from_scratch": None}
    (base / "cell.json").write_text(json.dumps(cell))
    assert run(base) == 0
    assert json.loads((base / "model.json").read_text()) == {"id": "org/name", "revision": "abc"}


@pytest.mark.parametrize("reduction", ["token_batch", "seq_mean", "seq_sum"])
def test_the_loss_of_sft_is_the_reduction_that_was_asked_for(sft, reduction):
    cell = json.loads((sft / "cell.json").read_text())
    cell["train"]["params"] = {"nll_reduction": reduction}
    cell["train"]["training"] |= {"max_steps": 1, "global_batch_size": 20, "per_device_batch_size": 5}
    (sft / "cell.json").write_text(json.dumps(cell))
    settings = read_settings(sft)
    model = start_model(settings, load_tokenizer(settings.corpus))
    rows = read_rows(settings.recipe.data, TEXT_IDS)
    logps = [plain_logps(model, row["prompt_ids"], row["completion_ids"]) for row in rows]
    lengths = [len(row["completion_ids"]) for row in rows]
    expected = {
        "token_batch": -sum(logps) / sum(lengths),
        "seq_mean": -sum(value / n for value, n in zip(logps, lengths, strict=True)) / len(rows),
        "seq_sum": -sum(logps) / len(rows),
    }
    assert run(sft) == 0
    logged = next(row["loss"] for row in read_log(sft) if "loss" in row)
    assert logged == pytest.approx(expected[reduction], rel=1e-4)


def plain_logps(model, prompt, completion):
    """Sum of the completion's log-probabilities from the model's own logits."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion))
