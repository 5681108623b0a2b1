import copy

import pytest
import torch
from tiny_models import assert_same_gradients, gradients
from tiny_training import EOS, VOCABULARY, random_pairs, tiny_llama
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from po.engine import logps
from po.engine.forward import attach_engine, completion_logps
from po.engine.lengths import length_groups
from po.training.collate import Collator

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "pad_token_id": 0,
}


def plain_logps(model, rows):
    """One row at a time, no padding, full logits: the definition."""
    found = []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            prompt, completion = row["prompt_ids"], row[side]
            ids = torch.tensor([prompt + completion])
            table = model(input_ids=ids).logits[0].float().log_softmax(dim=-1)
            found.append(sum(table[len(prompt) - 1 + i, token] for i, token in enumerate(completion)))
    return torch.stack(found)


@pytest.fixture
def rows():
    return random_pairs(20)


def test_the_engine_equals_a_plain_log_softmax_in_values_and_gradients(rows):
    model = tiny_llama()
    expected = plain_logps(model, rows)
    weights = torch.linspace(-1, 1, len(expected))
    expected_gradients = gradients(model, (expected * weights).sum())
    found, lengths = completion_logps(attach_engine(model), Collator()(rows))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    assert lengths.tolist() == [len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    assert_same_gradients(gradients(model, (found * weights).sum()), expected_gradients, 1e-4)


def test_padding_changes_nothing(rows):
    model, batch = attach_engine(tiny_llama()), Collator()(rows)
    found, lengths = completion_logps(model, batch)
    wider = {n: v if v.dim() == 1 else torch.nn.functional.pad(v, (0, 7)) for n, v in batch.items()}
    wider["input_ids"][wider["attention_mask"] == 0] = 17
    same, same_lengths = completion_logps(model, wider)
    assert torch.allclose(found, same, rtol=0, atol=1e-6)
    assert torch.equal(lengths, same_lengths)


def test_rows_are_grouped_by_length_and_come_back_in_order(rows):
    batch = Collator()(rows)
    groups = length_groups(batch["attention_mask"])
    assert len(groups) == 4
    assert sorted(torch.cat([members for members, _ in groups]).tolist()) == list(range(40))
    ends = [end for _, end in groups]
    assert ends == sorted(ends) and ends[0] < ends[-1] == batch["input_ids"].shape[1]
    assert all(not batch["attention_mask"][members, end:].any() for members, end in groups)


def test_rows_padded_on_the_left_are_not_cut():
    mask = torch.zeros(16, 6, dtype=torch.long)
    mask[:, 3:] = 1
    assert [end for _, end in length_groups(mask)] == [6, 6]


def test_a_prompt_contributes_nothing_of_its_own():
    model = attach_engine(tiny_llama())
    row = {"prompt_ids": [5, 6, 7, 8], "chosen_ids": [9, EOS], "rejected_ids": [10, EOS]}
    whole, lengths = completion_logps(model, Collator()([row]))
    table = model(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[0].log_softmax(dim=-1)
    assert whole[0].item() == pytest.approx((table[3, 9] + table[4, EOS]).item(), abs=1e-5)
    assert lengths.tolist() == [2, 2]


def test_the_end_of_sequence_token_counts():
    model = attach_engine(tiny_llama())
    row = {"prompt_ids": [5, 6], "chosen_ids": [9, EOS], "rejected_ids": [9]}
    (with_end, without_end), lengths = completion_logps(model, Collator()([row]))
    end = model(input_ids=torch.tensor([[5, 6, 9]])).logits[0, -1].log_softmax(dim=-1)[EOS]
    assert (with_end - without_end).item() == pytest.approx(end.item(), abs=1e-5)
    assert lengths.tolist() == [2, 1]


def test_an_empty_completion_is_refused():
    row = {"prompt_ids": [5, 6], "chosen_ids": [9], "rejected_ids": []}
    with pytest.raises(ValueError, match="row 1 of the batch has no completion token"):
        completion_logps(attach_engine(tiny_llama()), Collator()([row]))


def test_a_completion_without_a_prompt_is_refused():
    row = {"prompt_ids": [], "chosen_ids": [9, EOS], "rejected_ids": [8, EOS]}
    with pytest.raises(ValueError, match="row 0 starts at position 0"):
        completion_logps(attach_engine(tiny_llama()), Collator()([row]))


def test_chunks_change_neither_values_nor_gradients(rows, monkeypatch):
    model, batch = attach_engine(tiny_llama()), Collator()(rows)
    whole, _ = completion_logps(model, batch)
    expected = gradients(model, whole.square().sum())
    model.lm_head.__class__ = type("Adapted", (torch.nn.Linear,), {})  # so it has to be called
    calls = []
    chunk = logps._chunk
    monkeypatch.setattr(logps, "_chunk", lambda *a: calls.append(len(a[0])) or chunk(*a))
    monkeypatch.setattr(logps, "CHUNK_BYTES", 4 * VOCABULARY * 5)
    chunked, _ = completion_logps(model, batch)
    assert max(calls) == 5 and sum(calls) == int(batch["completion_mask"].sum())
    assert torch.allclose(chunked, whole, rtol=1e-6, atol=1e-5)
    assert_same_gradients(gradients(model, chunked.square().sum()), expected, 1e-5)


def test_gradient_checkpointing_changes_nothing(rows):
    model, batch = attach_engine(tiny_llama()), Collator()(rows)
    expected = gradients(model, completion_logps(model, batch)[0].sum())
    model.gradient_checkpointing_enable()
    model.train()
    assert_same_gradients(gradients(model, completion_logps(model, batch)[0].sum()), expected, 1e-5)


def test_soft_capped_logits_are_capped(rows):
    torch.manual_seed(0)
    config = Gemma2Config(
        **SHAPE, final_logit_softcapping=2.0, attn_logit_softcapping=5.0, attn_implementation="eager"
    )
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    expected = plain_logps(model, rows)
    found, _ = completion_logps(attach_engine(model), Collator()(rows))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)
    model.config.final_logit_softcapping = None
    uncapped, _ = completion_logps(model, Collator()(rows))
    assert (uncapped - expected).abs().max() > 1  # so the cap was felt


def test_an_architecture_that_scales_its_logits_is_scored_by_its_own(rows):
    model = GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=8.0)).eval()
    expected = plain_logps(model, rows)
    with pytest.warns(UserWarning, match="GraniteForCausalLM changes the logits of its head"):
        attach_engine(model)
    assert torch.allclose(completion_logps(model, Collator()(rows))[0], expected, rtol=0, atol=1e-5)
    model.config.logits_scaling = 1.0
    assert not torch.allclose(completion_logps(model, Collator()(rows))[0], expected, rtol=0, atol=1e-2)


def test_without_a_completion_mask_the_model_answers_as_before():
    plain = tiny_llama()
    attached = attach_engine(copy.deepcopy(plain))
    ids = torch.tensor([[5, 6, 7, EOS]])
    assert torch.equal(attached(input_ids=ids).logits, plain(input_ids=ids).logits)
    loss = attached(input_ids=ids, labels=ids).loss
    assert loss.item() == plain(input_ids=ids, labels=ids).loss.item()


def test_a_copy_of_an_attached_model_scores_with_its_own_weights(rows):
    model = attach_engine(tiny_llama())
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(2)
    batch = Collator()(rows)
    assert not torch.allclose(completion_logps(model, batch)[0], completion_logps(other, batch)[0])
