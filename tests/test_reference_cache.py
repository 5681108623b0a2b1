import json

import numpy as np
import pytest
import torch
from tiny_training import MODEL, add_dpo, make_experiment, random_pairs, tiny_llama, write_rows

from po import reference
from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.models.loading import write_json
from po.reference import compute, load_reference, weights_digest
from po.references import values as values_module
from po.references.sources import LiveReference
from po.references.values import reference_values
from po.training.collate import Collator


@pytest.fixture
def folder(tmp_path):
    """A reference folder whose parent cell has a model, nothing computed yet."""
    parent = make_experiment(tmp_path)
    tiny_llama().save_pretrained(parent / "model")
    write_json(parent / "model.json", {"path": "model"})
    add_dpo(tmp_path, parent)
    return tmp_path / "reference" / "sft--0"


def test_cached_values_are_those_of_the_live_model_in_the_order_of_the_rows(folder):
    compute(folder)
    model, rows = tiny_llama(), random_pairs(20)
    live, _ = completion_logps(attach_engine(model), Collator()(rows))
    found = load_reference(folder, rows, model)
    stored = np.array([row["reference_logps"] for row in found])
    np.testing.assert_allclose(stored, live.detach().view(2, 20).T.numpy(), rtol=1e-5, atol=1e-5)


def logps(rows, precision="fp32"):
    return reference_values(tiny_llama(), rows, precision)["logps"]


def test_batches_stay_within_their_tokens(monkeypatch):
    rows, sizes = random_pairs(30), []
    whole = logps(rows)
    monkeypatch.setattr(values_module, "_TOKENS_A_BATCH", 64)
    ask = LiveReference.values

    def counting(self, batch, asked):
        sizes.append(batch["input_ids"].numel())
        return ask(self, batch, asked)

    monkeypatch.setattr(LiveReference, "values", counting)
    np.testing.assert_allclose(logps(rows), whole, rtol=1e-5, atol=1e-5)
    assert max(sizes) <= 64 and len(sizes) > 5


def test_bf16_is_close_and_not_the_same():
    rows = random_pairs(8)
    exact, rough = (logps(rows, precision) for precision in ("fp32", "bf16"))
    assert 1e-4 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_a_second_computation_does_nothing(folder, monkeypatch):
    compute(folder)
    before = (folder / "logps.npy").read_bytes()
    monkeypatch.setattr(reference, "load_start", lambda *_: pytest.fail("the model was loaded again"))
    compute(folder)
    assert (folder / "logps.npy").read_bytes() == before


def test_other_pairs_are_refused(folder):
    compute(folder)
    with pytest.raises(InputFault, match="computed for other rows; delete .*sft--0 and run again"):
        load_reference(folder, random_pairs(20, seed=1), tiny_llama())
    with pytest.raises(InputFault, match="other rows"):
        load_reference(folder, random_pairs(19), tiny_llama())


def test_other_weights_are_refused(folder):
    compute(folder)
    model = tiny_llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] += 1e-3
    with pytest.raises(InputFault, match="come from other weights"):
        load_reference(folder, random_pairs(20), model)


def test_the_digest_of_weights_covers_every_type_and_shape():
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    model.register_buffer("steps", torch.tensor(3))
    digest = weights_digest(model)
    model.steps += 1
    assert weights_digest(model) != digest


def test_a_missing_parent_is_one_line_and_exit_code_65(folder, capsys):
    (folder.parents[1] / "cells" / "tiny.toy.sft.s1--0" / "model.json").unlink()
    assert reference.main([str(folder)]) == 65
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "tiny.toy.sft.s1--0 is not trained yet" in error


def test_a_model_from_scratch_is_no_reference(folder, capsys):
    unit = json.loads((folder / "unit.json").read_text()) | {"parent": None, "model": MODEL}
    (folder / "unit.json").write_text(json.dumps(unit))
    assert reference.main([str(folder)]) == 65
    assert "give the method a 'from'" in capsys.readouterr().err


def test_a_damaged_row_is_named_by_file_and_line(folder, capsys):
    path = folder.parents[1] / "data" / "tiny.toy--0" / "train.jsonl"
    write_rows(path, [*random_pairs(2), random_pairs(1)[0] | {"rejected_ids": []}])
    assert reference.main([str(folder)]) == 65
    assert "train.jsonl:3: rejected_ids is empty" in capsys.readouterr().err
