"""Encoder-decoder models: the engine against the model's own use of labels, and training."""

import math

import pytest
import torch
from tiny_models import ENCODER_DECODERS, assert_same_gradients, gradients, tiny, with_reference
from tiny_training import EOS, preference_trainer, random_pairs

from po.engine.forward import attach_engine, completion_logps, completion_values
from po.engine.token_values import Asked
from po.faults import InputFault
from po.models.loading import disable_dropout
from po.references.mismatch import with_mismatched
from po.references.values import reference_values, with_values
from po.training.collate import Collator

ROMANIAN, GERMAN = 58, 59  # languages of an mBART


def closed(rows):
    """Prompts as encoders get them, closed by EOS."""
    return [row | {"prompt_ids": [*row["prompt_ids"], EOS]} for row in rows]


@pytest.fixture
def rows():
    return closed(random_pairs(20))


@pytest.fixture
def batch(rows):
    return Collator(encoder_decoder=True)(rows)


@pytest.fixture(params=ENCODER_DECODERS)
def model(request):
    return tiny(request.param)


def plain_parts(model, rows):
    """The distributions for each completion and the log-probabilities of its tokens, row by row."""
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            labels = torch.tensor([row[side]])
            logits = model(input_ids=torch.tensor([row["prompt_ids"]]), labels=labels).logits[0]
            table = logits.float().log_softmax(dim=-1)
            yield table, table[torch.arange(labels.shape[1]), labels[0]]


def plain_logps(model, rows):
    return torch.stack([logps.sum() for _, logps in plain_parts(model, rows)])


def test_values_and_gradients_are_those_of_the_models_own_labels(model, rows, batch):
    expected = plain_logps(model, rows)
    weights = torch.linspace(-1, 1, len(expected))
    expected_gradients = gradients(model, (expected * weights).sum())
    found, lengths = completion_logps(attach_engine(model), batch)
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)
    assert lengths.tolist() == [len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    assert (expected / lengths).std() > 0.1
    assert_same_gradients(gradients(model, (found * weights).sum()), expected_gradients, 1e-4)


@torch.no_grad()
def test_neither_padding_nor_the_rest_of_the_batch_changes_a_value(model, rows, batch):
    attach_engine(model)
    found, _ = completion_logps(model, batch)
    wider = {k: v if k == "prompt_rows" else torch.nn.functional.pad(v, (0, 5)) for k, v in batch.items()}
    wider["input_ids"][wider["attention_mask"] == 0] = 17
    wider["completion_ids"][~wider["completion_mask"]] = 18
    assert torch.allclose(completion_logps(model, wider)[0], found, rtol=0, atol=5e-5)
    alone = [completion_logps(model, Collator(encoder_decoder=True)([row]))[0] for row in rows]
    assert torch.allclose(torch.stack(alone, dim=1).flatten(), found, rtol=0, atol=5e-5)


@torch.no_grad()
def test_what_else_is_asked_for_agrees_with_full_logits(model, rows, batch):
    parts = list(plain_parts(model, rows))
    attach_engine(model)
    asked = Asked(collision=True, entropy=True, tokens=True, distributions=True)
    found, lengths = completion_values(model, batch, asked)
    assert torch.allclose(found["distributions"], torch.cat([table for table, _ in parts]), atol=5e-5)
    for row, (table, logps) in enumerate(parts):
        collision = table.exp().square().sum(dim=-1).log().mean()
        entropy = -(table.exp() * table).sum(dim=-1).mean() / math.log(table.shape[1])
        assert found["collision"][row].item() == pytest.approx(collision.item(), abs=1e-4)
        assert found["entropy"][row].item() == pytest.approx(entropy.item(), abs=1e-4)
        assert torch.allclose(found["token_logps"][row, : lengths[row]], logps, rtol=0, atol=5e-5)
    flat = torch.full_like(found["distributions"], -math.log(table.shape[1]))
    kl, _ = completion_values(model, batch, Asked(kl=True), reference_distributions=flat)
    each = -math.log(table.shape[1]) - found["distributions"].mean(dim=-1)
    expected = torch.stack([part.sum() for part in each.split(lengths.tolist())])
    assert torch.allclose(kl["kl"], expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_a_model_in_bf16_gives_float32_log_probabilities_near_the_exact_ones(model, batch):
    exact, lengths = completion_logps(attach_engine(model), batch)
    found, _ = completion_logps(model.to(torch.bfloat16), batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.to(torch.bfloat16).float())
    assert ((found - exact).abs() / lengths).median() < 0.1


def test_the_encoder_runs_once_for_each_distinct_prompt(model):
    rows, seen = closed(random_pairs(6)), []
    rows[4]["prompt_ids"] = rows[0]["prompt_ids"]
    expected = plain_logps(model, rows)
    attach_engine(model)
    model.get_encoder().register_forward_pre_hook(
        lambda _, __, arguments: seen.append(len(arguments["input_ids"])), with_kwargs=True
    )
    found, _ = completion_logps(model, Collator(encoder_decoder=True)(rows))
    assert seen == [5]
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)


def test_the_decoder_starts_as_the_model_would_start_it():
    rows = closed(random_pairs(2))
    for row, language in zip(rows, (ROMANIAN, GERMAN), strict=True):
        row |= {side: [*row[side], language] for side in ("chosen_ids", "rejected_ids")}
    started, batch = {}, Collator(encoder_decoder=True)(rows)
    for name in ("t5", "mbart", "marian", "bart"):
        model = attach_engine(tiny(name))
        model.get_decoder().register_forward_pre_hook(
            lambda _, __, arguments, name=name: started.update({name: arguments["input_ids"]}),
            with_kwargs=True,
        )
        completion_logps(model, batch)
        assert torch.equal(started[name][0, 1:4], batch["completion_ids"][0, :3])
    assert started["mbart"][:, 0].tolist() == [ROMANIAN, GERMAN, ROMANIAN, GERMAN]
    assert {started[name][0, 0].item() for name in ("t5", "marian")} == {0}
    assert started["bart"][0, 0] == EOS


def test_prompt_tokens_cannot_be_scored(model, batch):
    with pytest.raises(ValueError, match="an encoder-decoder model scores completions only"):
        completion_values(attach_engine(model), batch, Asked(prompt=True))


def test_a_likelihood_of_prompts_is_refused_before_training(tmp_path):
    with pytest.raises(InputFault, match="set nll_scope to 'completion'"):
        preference_trainer(
            tmp_path, tiny("t5"), closed(random_pairs(4)), "orpo", {"nll_scope": "prompt_and_completion"}
        )


def train(tmp_path, model, rows, method, **more):
    disable_dropout(model)
    more = {"per_device_train_batch_size": len(rows), **more}
    trainer = preference_trainer(tmp_path, model, rows, method, **more)
    trainer.train()
    before, after = dict(model.named_parameters()), dict(trainer.model.named_parameters())
    assert sum(not torch.equal(before[name], after[name]) for name in after) > len(after) / 2
    return trainer


def test_dpo_starts_at_log_2_with_stored_reference_values(tmp_path, model):
    rows = closed(random_pairs(8))
    rows = with_reference(rows, model)
    stored = torch.tensor([row["reference_logps"] for row in rows]).T.flatten()
    assert torch.allclose(stored, plain_logps(model, rows), rtol=0, atol=5e-5)
    trainer = train(tmp_path, model, rows, "dpo")
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_kto_and_sft_train_too(tmp_path, model):
    rows = with_mismatched(closed(random_pairs(6)))
    kinds = ("logps", "mismatched_logps")
    rows = with_values(rows, reference_values(model, rows, "fp32", kinds))
    foreign = [row | {"chosen_ids": row["mismatched_ids"][0]} for row in rows]
    expected = plain_logps(model, foreign)[:6]
    stored = torch.tensor([row["reference_mismatched_logps"][0] for row in rows])
    assert torch.allclose(stored, expected, rtol=0, atol=5e-5)
    trainer = train(tmp_path, model, rows, "kto")
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    rows = [{"prompt_ids": row["prompt_ids"], "completion_ids": row["chosen_ids"]} for row in rows]
    trainer = train(tmp_path, model, rows, "sft")
    pairs = [row | {"chosen_ids": row["completion_ids"], "rejected_ids": [EOS]} for row in rows]
    expected = -plain_logps(model, pairs)[:6].sum() / sum(len(row["completion_ids"]) for row in rows)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_gradient_checkpointing_trains_the_same_weights(tmp_path, model):
    rows = closed(random_pairs(6))
    how = {"optim": "sgd", "learning_rate": 0.01}
    plain = train(tmp_path, model, rows, "simpo", **how)
    saving = train(tmp_path, model, rows, "simpo", gradient_checkpointing=True, **how)
    assert saving.model.is_gradient_checkpointing
    for ours, theirs in zip(saving.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_evaluation_counts_pairs_and_not_prompts(tmp_path):
    model, rows = tiny("t5"), closed(random_pairs(6))
    for row in rows[1:4]:
        row["prompt_ids"] = rows[0]["prompt_ids"]
    held_out = preference_trainer(
        tmp_path, model, rows, "simpo", eval_rows=rows, per_device_eval_batch_size=4
    )
    alone = preference_trainer(tmp_path, model, rows, "simpo", eval_rows=rows, per_device_eval_batch_size=1)
    assert held_out.evaluate()["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)
