"""Packed rows with shared prompts give the values and gradients of padded rows, whatever is in a batch."""

import random

import pytest
import torch
from tiny_models import MIXTURES, SCALED, tiny
from tiny_sharing import assert_same, both_ways, candidates, values_and_gradients
from tiny_training import EOS, random_ids, random_pairs, tiny_llama

from po.engine.forward import attach_engine, completion_logps, completion_values
from po.engine.packing import pack
from po.training.collate import Collator

SHARING = ["llama", "gemma2", "qwen3", "phi3", "olmo2", *MIXTURES, *SCALED]
SOME = ["llama", "gemma2"]


@pytest.mark.parametrize("name", SHARING)
def test_pairs(name):
    assert_same(both_ways(lambda: tiny(name), Collator()(random_pairs(5)), router=name in MIXTURES))


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("short", [0, 256])
def test_ranked_lists(name, short, monkeypatch):
    monkeypatch.setattr("po.engine.group_attention.SHORT", short)
    assert_same(both_ways(lambda: tiny(name), Collator("ranked")(candidates(4)), router=name in MIXTURES))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("window", [1, 2, 9, 25, 40, 63])
@pytest.mark.parametrize("short", [0, 256])
def test_windows_shorter_and_longer_than_prompts_completions_and_groups(name, window, short, monkeypatch):
    monkeypatch.setattr("po.engine.group_attention.SHORT", short)
    batch = Collator("ranked")(candidates(3, prompt=(8, 24), completion=(6, 30)))
    lengths = batch["attention_mask"].sum(dim=1)
    assert lengths.min() > 9 and 40 < lengths.max() < 63
    kind = "gemma2" if name == "gemma2" else "phi3"
    assert_same(both_ways(lambda: tiny(kind, sliding_window=window), batch))


@pytest.mark.parametrize("cap", [0.5, 50.0])
def test_caps_of_scores(cap):
    batch = Collator("ranked")(candidates(3))
    assert_same(both_ways(lambda: tiny("gemma2", attn_logit_softcapping=cap), batch))


def unpaired(n):
    chance = random.Random(4)
    prompts = [random_ids(chance, 1, 9) for _ in range(3)]
    return [{"prompt_ids": prompts[i % 3], "completion_ids": random_ids(chance, 1, 9)} for i in range(n)]


SHORTEST = {"prompt_ids": [5], "chosen_ids": [EOS], "rejected_ids": [7]}
BATCHES = {
    "unpaired with equal prompts": lambda: Collator("unpaired")(unpaired(8)),
    "one row": lambda: Collator("unpaired")(unpaired(1)),
    "prompt and completions of one token": lambda: Collator()([SHORTEST]),
    "one token beside longer ones": lambda: Collator()([SHORTEST, *random_pairs(3)]),
    "equal completions": lambda: Collator()([SHORTEST | {"rejected_ids": [EOS]}]),
    "completions of other prompts": lambda: mismatched(random_pairs(4)),
}


def mismatched(rows):
    rows = [
        row | {"mismatched_ids": [other["chosen_ids"], other["rejected_ids"]]}
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    batch = Collator(columns=("policy_mismatched",))(rows)
    return {
        name.removeprefix("mismatched_"): value for name, value in batch.items() if name.startswith("mism")
    }


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("batch", BATCHES)
def test_batches_of_all_kinds(name, batch):
    assert_same(both_ways(lambda: tiny(name), BATCHES[batch]()))


@pytest.mark.parametrize("name", SOME)
def test_without_prompt_rows_no_prompt_is_shared_and_nothing_changes(name):
    batch = Collator()(random_pairs(5))
    shared, _ = values_and_gradients(attach_engine(tiny(name)), batch)
    alone = {key: value for key, value in batch.items() if key != "prompt_rows"}
    assert_same(both_ways(lambda: tiny(name), alone))
    found, _ = values_and_gradients(attach_engine(tiny(name)), alone)
    torch.testing.assert_close(found["logps"], shared["logps"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", SHARING)
@torch.no_grad()
def test_a_value_does_not_depend_on_the_rest_of_the_batch(name):
    model, rows = attach_engine(tiny(name)), random_pairs(9)
    whole, _ = completion_logps(model, Collator()(rows))
    pairs = dict(enumerate(whole.view(2, -1).T))
    for chosen in ([3], [8, 3], [1, 3, 5, 7], [7, 5, 3, 1, 0, 2, 4]):
        found, _ = completion_logps(model, Collator()([rows[i] for i in chosen]))
        expected = torch.stack([pairs[i] for i in chosen], dim=1).flatten()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    single = [
        completion_logps(model, Collator("unpaired")([{"prompt_ids": r["prompt_ids"], "completion_ids": c}]))
        for r in rows
        for c in (r["chosen_ids"], r["rejected_ids"])
    ]
    found = torch.cat([logps for logps, _ in single]).view(-1, 2).T.flatten()
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-5)


def test_a_prompt_stands_once_and_padding_not_at_all():
    batch = Collator("ranked")(candidates(4))
    row = pack(*(batch[name] for name in ("input_ids", "attention_mask", "completion_mask", "prompt_rows")))
    prompts = sum(len(one["prompt_ids"]) for one in candidates(4))
    completions = int(batch["completion_mask"].sum())
    assert row.ids.shape == (1, prompts + completions)
    inside = batch["attention_mask"] > 0
    assert torch.equal(row.ids[0, row.place[inside]], batch["input_ids"][inside])
    columns = torch.arange(inside.shape[1]).expand_as(inside)
    assert torch.equal(row.positions[0, row.place[inside]], columns[inside])


def moved_left(batch):
    """The batch with the padding of its rows in front of them."""
    shifts = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    return {
        name: value
        if value.dim() == 1
        else torch.stack([row.roll(shift) for row, shift in zip(value, shifts, strict=True)])
        for name, value in batch.items()
    }


def with_a_hole(batch):
    mask = batch["attention_mask"].clone()
    mask[1, 1] = 0
    return batch | {"attention_mask": mask}


def beyond_the_end(batch):
    mask = batch["completion_mask"].clone()
    mask[int((batch["attention_mask"][:, -1] == 0).nonzero()[0]), -1] = True
    return batch | {"completion_mask": mask}


@pytest.mark.parametrize("spoil", [moved_left, with_a_hole, beyond_the_end])
def test_padding_elsewhere_than_on_the_right_is_refused(spoil):
    model, batch = attach_engine(tiny_llama()), spoil(Collator()(random_pairs(4)))
    with pytest.raises(ValueError, match=r"row \d of the batch has padding .* padded on the right"):
        completion_values(model, batch)


def test_prompt_rows_that_name_another_prompt_are_refused():
    model, batch = attach_engine(tiny_llama()), Collator()(random_pairs(4))
    batch["prompt_rows"] = torch.zeros(8, dtype=torch.long)
    with pytest.raises(ValueError, match="row 1 has the prompt of row 0, but the tokens differ"):
        completion_values(model, batch)
