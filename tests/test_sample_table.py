"""Samples during evaluation: right, harmless, and written as a table."""

import json
import sys
import types

import pytest
import torch
from tiny_library import library_trainer, text_pairs, word_tokenizer
from tiny_training import random_pairs, tiny_llama
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from po.engine.forward import attach_engine
from po.training.sample_table import SampleTable, markdown

EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "generate_during_eval": True}


def gpt2(seed=0):
    """Its positions are absolute, so a wrong one shows."""
    torch.manual_seed(seed)
    shape = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return spread(GPT2LMHeadModel(GPT2Config(vocab_size=60, **shape, **special)))


def t5(seed=0):
    torch.manual_seed(seed)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    return spread(T5ForConditionalGeneration(T5Config(vocab_size=60, decoder_start_token_id=0, **shape)))


def spread(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8) if parameter.dim() > 1 else None
    return model


def table(rows, folder, n=3, **more):
    return SampleTable(word_tokenizer(), rows, None, n, 6, folder, **more)


def read(folder, step):
    return [json.loads(line) for line in (folder / f"step-{step}.jsonl").read_text().splitlines()]


def trained(tmp_path, method="dpo", **settings):
    trainer = library_trainer(
        tmp_path,
        text_pairs(),
        method,
        eval_rows=text_pairs(4, seed=7),
        processing_class=word_tokenizer(),
        **settings,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("model", [gpt2, tiny_llama, t5])
def test_a_sample_does_not_depend_on_the_prompts_beside_it(tmp_path, model):
    rows, model = random_pairs(3, seed=2), attach_engine(model())
    assert len({len(row["prompt_ids"]) for row in rows}) == 3
    together = table(rows, tmp_path).sample(model)
    alone = [table([row], tmp_path).sample(model)[0] for row in rows]
    assert together == alone and len(set(together)) > 1


@pytest.mark.parametrize("model", [gpt2, tiny_llama])
def test_samples_are_what_the_likeliest_next_tokens_spell(tmp_path, model):
    row, model = random_pairs(1)[0], model().eval()
    ids = list(row["prompt_ids"])
    for _ in range(6):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    expected = word_tokenizer().decode(ids[len(row["prompt_ids"]) :], skip_special_tokens=True)
    model.generation_config.update(do_sample=True, temperature=0.7, repetition_penalty=1.5)
    assert table([row], tmp_path).sample(attach_engine(model)) == [expected]


def test_samples_end_within_the_positions_of_the_model(tmp_path):
    rows = [{**random_pairs(1)[0], "prompt_ids": [5] * 62}]
    short = SampleTable(word_tokenizer(), rows, None, 1, 50, tmp_path)
    assert len(short.sample(gpt2())[0].split()) <= 2


def test_tables_are_written_at_each_evaluation(tmp_path):
    trained(tmp_path, **EVERY_STEP, eval_samples=3, eval_new_tokens=5, learning_rate=0.1)
    folder = tmp_path / "out" / "samples"
    first, second = read(folder, 1), read(folder, 2)
    pairs = text_pairs(4, seed=7)
    assert [row["prompt"] for row in first] == [pair["prompt"] for pair in pairs[:3]]
    assert [row["chosen"] for row in first] == [pair["chosen"] for pair in pairs[:3]]
    assert [list(row) for row in first] == [["prompt", "policy", "reference", "chosen"]] * 3
    assert [row["reference"] for row in first] == [row["reference"] for row in second]
    assert any(row["policy"] != row["reference"] for row in second)
    assert "| prompt | policy | reference | chosen |" in (folder / "step-2.md").read_text()


def test_the_reference_is_sampled_alike_whether_it_is_there_or_stored(tmp_path):
    trained(tmp_path / "live", **EVERY_STEP)
    trained(tmp_path / "stored", **EVERY_STEP, precompute_ref_log_probs=True)
    found = [read(tmp_path / kind / "out" / "samples", 2) for kind in ("live", "stored")]
    assert [row["reference"] for row in found[0]] == [row["reference"] for row in found[1]]


def test_a_stored_reference_of_another_model_is_sampled_before_it_goes(tmp_path):
    other = tiny_llama(seed=1)
    trained(tmp_path, **EVERY_STEP, ref_model=other, precompute_ref_log_probs=True)
    rows = [{"prompt_ids": word_tokenizer()(pair["prompt"])["input_ids"]} for pair in text_pairs(4, seed=7)]
    expected = SampleTable(word_tokenizer(), rows, None, 4, 64, tmp_path).sample(other)
    assert [row["reference"] for row in read(tmp_path / "out" / "samples", 2)] == expected


def test_a_run_that_is_resumed_still_knows_the_samples_of_a_stored_reference(tmp_path):
    settings = EVERY_STEP | {"precompute_ref_log_probs": True, "save_strategy": "steps", "save_steps": 1}
    trained(tmp_path, **settings)
    folder = tmp_path / "out" / "samples"
    whole = read(folder, 2)
    (folder / "step-2.jsonl").unlink()
    again = library_trainer(
        tmp_path,
        text_pairs(),
        eval_rows=text_pairs(4, seed=7),
        processing_class=word_tokenizer(),
        **settings,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert read(folder, 2) == whole


def test_a_reference_that_moves_is_sampled_anew(tmp_path):
    trained(tmp_path, "tr_dpo", **EVERY_STEP, sync_steps=1, sync_mix=1.0, learning_rate=0.1)
    for step in (1, 2):
        assert all(row["policy"] == row["reference"] for row in read(tmp_path / "out" / "samples", step))


def test_a_method_without_reference_has_no_column_for_one(tmp_path):
    trained(tmp_path, "simpo", **EVERY_STEP)
    assert list(read(tmp_path / "out" / "samples", 1)[0]) == ["prompt", "policy", "chosen"]


@pytest.mark.parametrize("method", ["dpo", "bco", "sampo"])
def test_sampling_changes_nothing_of_training(tmp_path, method):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 3, "disable_dropout": False}
    make = {"model": tiny_llama(attention_dropout=0.2)}
    plain = trained(tmp_path / "plain", method, **settings, **make)
    make = {"model": tiny_llama(attention_dropout=0.2)}
    sampled = trained(tmp_path / "sampled", method, **settings, **make, generate_during_eval=True)
    pairs = zip(plain.model.parameters(), sampled.model.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    assert plain.loss_state.state_dict() == sampled.loss_state.state_dict()
    assert sampled.model.training == plain.model.training


def test_random_numbers_are_drawn_on_as_if_nothing_was_sampled(tmp_path):
    model = tiny_llama()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    table(random_pairs(2), tmp_path).sample(model)
    assert torch.equal(torch.rand(4), expected)


def test_texts_stay_within_their_cells():
    found = markdown([{"prompt": "a | b\nc", "policy": "<br> & x"}], 7)
    assert found.splitlines()[0] == "# Samples at step 7"
    assert found.splitlines()[-1] == "| a \\| b<br>c | &lt;br&gt; &amp; x |"


def test_undesirable_completions_are_not_shown_as_wanted(tmp_path):
    rows = [{"prompt_ids": [6], "completion_ids": [7, 2], "desirable": wanted} for wanted in (True, False)]
    callback = table(rows, tmp_path)
    state = types.SimpleNamespace(global_step=5, is_world_process_zero=True)
    callback.on_evaluate(types.SimpleNamespace(report_to=[]), state, None, model=tiny_llama())
    assert [row["chosen"] for row in read(tmp_path, 5)] == ["w7", ""]


def test_weights_and_biases_gets_the_table_too(tmp_path, monkeypatch):
    logged = []
    fake = types.ModuleType("wandb")
    fake.run, fake.log = object(), logged.append
    fake.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    state = types.SimpleNamespace(global_step=5, is_world_process_zero=True)
    callback = table(random_pairs(2), tmp_path)
    callback.on_evaluate(types.SimpleNamespace(report_to=["wandb"]), state, None, model=tiny_llama())
    columns, data = logged[0]["samples"]
    assert columns == ["prompt", "policy", "chosen"] and len(data) == 2
    assert logged[0]["train/global_step"] == 5
