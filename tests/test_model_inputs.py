"""What of a batch goes into a model's forward, and in which mode a reference is asked."""

import pytest
import torch
from tiny_training import tiny_llama
from trainer_cases import plain_rows

from po.engine.forward import attach_engine
from po.engine.token_values import Asked
from po.references.mismatch import with_mismatched
from po.references.sources import LiveReference, StoredReference
from po.training import collate
from po.training.collate import COMPLETION_COLUMNS, ROW_COLUMNS, STORED, Collator, mismatched_part, text_part

TEXT = {"input_ids", "attention_mask", "completion_mask", "prompt_rows"}
ALL = (*ROW_COLUMNS, *COMPLETION_COLUMNS, "policy_mismatched")


def full_batch(form, columns=ALL, encoder_decoder=False):
    """A batch with all that batches of a form can have."""
    rows = plain_rows(form, 4)
    known = {name for row in rows for name in row}
    if form != "ranked":
        rows = with_mismatched(rows)
    taken = tuple(
        name for name in columns if name in known or name == "policy_mismatched" and form != "ranked"
    )
    counts = [len(collate.completions_of(row, form)) for row in rows]
    for row, count in zip(rows, counts, strict=True):
        row |= {name: [0.5] * count for name in STORED} | {"reference_token_logps": [[0.5]] * count}
    return Collator(form, taken, encoder_decoder)(rows)


@pytest.mark.parametrize("encoder_decoder", [False, True])
@pytest.mark.parametrize("form", ["paired", "unpaired", "ranked"])
def test_a_model_gets_texts_and_nothing_else(form, encoder_decoder):
    batch, expected = full_batch(form, encoder_decoder=encoder_decoder), set(TEXT)
    if encoder_decoder:
        expected.add("completion_ids")
    assert set(STORED) < set(batch)
    assert set(text_part(batch)) == expected
    assert set(mismatched_part(batch)) == (set() if form == "ranked" else expected)
    assert set(text_part(batch | {"pixel_values": batch["input_ids"]})) == {*expected, "pixel_values"}


def test_a_new_column_of_rows_stays_out_of_the_model(monkeypatch):
    monkeypatch.setattr(collate, "ROW_COLUMNS", (*ROW_COLUMNS, "confidence"))
    rows = [row | {"confidence": 0.5} for row in plain_rows("paired", 2)]
    batch = Collator("paired", ("confidence",))(rows)
    assert torch.equal(batch["confidence"], torch.tensor([0.5, 0.5]))
    assert set(text_part(batch)) == TEXT


def test_a_stored_reference_has_what_was_stored_and_no_more():
    batch = full_batch("paired") | {"reference_free_column": torch.zeros(8)}
    found = StoredReference().values(batch, Asked())
    assert set(found) == {name.removeprefix("reference_") for name in STORED}


def test_a_reference_that_was_asked_has_its_modes_back():
    model = attach_engine(tiny_llama())
    model.train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert set(before.values()) == {True, False}
    with LiveReference(model).asked() as asked:
        assert not any(module.training for module in asked.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
