import json

import numpy as np
import pytest
import torch
from accelerate import PartialState
from manifests import loaded
from tiny_training import MODEL, add_dpo, make_experiment, random_pairs, tiny_llama, write_rows

from po import reference
from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.files import write_json
from po.reference import compute, load_reference, weights_digest
from po.references import values as values_module
from po.references.cell import completed_rows
from po.references.sources import LiveReference
from po.references.values import reference_values
from po.settings import read_settings
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
    found = load_reference(folder, rows, model, "fp32")
    stored = np.array([row["reference_logps"] for row in found])
    np.testing.assert_allclose(stored, live.detach().view(2, 20).T.numpy(), rtol=1e-5, atol=1e-5)


def ask_for(folder, kinds):
    unit = json.loads((folder / "unit.json").read_text()) | {"kinds": kinds}
    write_json(folder / "unit.json", unit)


def logps(rows, precision="fp32"):
    return reference_values(tiny_llama(), rows, precision)["logps"]


def test_batches_stay_within_their_tokens(monkeypatch):
    rows, sizes = random_pairs(30), []
    whole = logps(rows)
    monkeypatch.setattr(values_module, "_TOKENS_A_BATCH", 64)
    ask = LiveReference.values

    def counting(self, batch, asked):
        inside = batch["attention_mask"].bool()
        prompts = zip(batch["input_ids"], inside & ~batch["completion_mask"], strict=True)
        distinct = {tuple(ids[mask].tolist()) for ids, mask in prompts}
        sizes.append(int(batch["completion_mask"].sum()) + sum(map(len, distinct)))
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
        load_reference(folder, random_pairs(20, seed=1), tiny_llama(), "fp32")
    with pytest.raises(InputFault, match="other rows"):
        load_reference(folder, random_pairs(19), tiny_llama(), "fp32")


def test_other_weights_are_refused(folder):
    compute(folder)
    model = tiny_llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] += 1e-3
    with pytest.raises(InputFault, match="come from other weights"):
        load_reference(folder, random_pairs(20), model, "fp32")


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({}, {"precision": "bf16"}, "computed in precision 'fp32', and training has 'bf16'; delete .*sft--0"),
        ({}, {"kinds": ("logps", "entropy")}, "has the values logps, and the method reads entropy too"),
        ({}, {"form": "ranked"}, "rows of the form 'unpaired', and training has 'ranked'"),
        ({"rule": "0: the mean"}, {}, "counted by the rule '0: the mean'"),
        ({"dtype": "bfloat16"}, {}, "weights of dtype 'bfloat16', and training has 'float32'"),
        ({"rule": None}, {}, "says nothing of rule; another version has written it"),
        ({"files": {"logps.npy": "0" * 64}}, {}, "logps.npy is damaged: its digest is not that in"),
    ],
)
def test_what_the_values_depend_on_is_checked_on_loading(folder, changes, asked, message):
    compute(folder)
    facts = json.loads((folder / "reference.json").read_text()) | changes
    write_json(folder / "reference.json", {name: value for name, value in facts.items() if value})
    with pytest.raises(InputFault, match=message):
        load_reference(folder, random_pairs(20), tiny_llama(), **{"precision": "fp32"} | asked)


def test_weights_of_another_dtype_are_refused_as_such(folder):
    compute(folder)
    with pytest.raises(InputFault, match="'float32', and training has 'bfloat16'"):
        load_reference(folder, random_pairs(20), tiny_llama().to(torch.bfloat16), "fp32")


def test_files_that_are_gone_or_damaged_are_named(folder):
    def load():
        return load_reference(folder, random_pairs(20), tiny_llama(), "fp32")

    with pytest.raises(InputFault, match="reference.json is missing; run: python -m po.reference"):
        load()
    compute(folder)
    whole = (folder / "logps.npy").read_bytes()
    (folder / "logps.npy").write_bytes(whole[:-4])
    with pytest.raises(InputFault, match="logps.npy is damaged"):
        load()
    (folder / "logps.npy").unlink()
    with pytest.raises(InputFault, match="logps.npy is missing; delete .*sft--0 and run again"):
        load()
    (folder / "reference.json").write_text("{")
    with pytest.raises(InputFault, match="reference.json is damaged"):
        load()


def test_values_of_tokens_stay_in_the_file_that_is_mapped_into_memory(folder):
    ask_for(folder, ["logps", "token_logps"])
    compute(folder)
    found = load_reference(folder, random_pairs(20), tiny_llama(), "fp32", ("logps", "token_logps"))
    of_row = found[3]["reference_token_logps"]
    assert [type(values.base.base) for values in of_row] == [np.memmap, np.memmap]
    assert not of_row[0].flags.writeable
    assert len(of_row[1]) == len(found[3]["rejected_ids"])
    sums = [[values.sum() for values in row["reference_token_logps"]] for row in found]
    np.testing.assert_allclose(sums, [row["reference_logps"] for row in found], rtol=1e-5)
    batch = Collator()(found)
    assert torch.equal(batch["reference_token_logps"][3, : len(of_row[0])], torch.tensor(of_row[0]))


def test_a_folder_with_more_than_is_asked_for_serves_too(folder):
    ask_for(folder, ["logps", "entropy"])
    compute(folder)
    row = load_reference(folder, random_pairs(20), tiny_llama(), "fp32")[0]
    assert {name for name in row if name.startswith("reference_")} == {"reference_logps"}


def test_cells_of_one_study_with_equal_references_name_one_folder(tmp_path):
    names = ("dpo", "dpo_gamma", "slic_dpo")
    methods = {"sft": {}} | {name: {"from": "sft"} for name in (*names, "mallows_dpo")}
    study = loaded(tmp_path, methods=methods, seeds=[1])
    cells = {cell.method: study.study.cell(cell).document for cell in study.grid.cells}
    assert len({cells[name]["reference"] for name in names}) == 1
    assert cells["mallows_dpo"]["reference"] not in {None, cells["dpo"]["reference"]}


def test_only_one_of_several_processes_computes(folder, monkeypatch):
    compute(folder)
    settings = read_settings(folder.parents[1] / "cells" / "tiny.toy.dpo.s1--0")
    calls = []
    monkeypatch.setattr(PartialState, "is_main_process", False)
    monkeypatch.setattr(PartialState, "wait_for_everyone", lambda self: calls.append("waits"))
    monkeypatch.setattr(reference, "compute", lambda _: calls.append("computes"))
    found = completed_rows(settings, settings.recipe, random_pairs(20), tiny_llama())
    assert calls == ["waits"] and len(found[0]["reference_logps"]) == 2


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
