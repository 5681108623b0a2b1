"""Log-probabilities of pair files: right values, in order, computed once, faults told."""

import json
import shutil

import numpy as np
import pytest
from tiny_training import VOCABULARY, add_dpo, make_experiment, tiny_llama

from po import logprobs
from po.data.templates import render
from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.files import write_json
from po.models.loading import load_tokenizer
from po.references import values
from po.references.store import PartFiles
from po.training.collate import Collator

PAIRS = [
    {
        "id": f"p{i}",
        "prompt": f"w5 w{6 + i}\n",
        "chosen": f"w7 w8 w{9 + i}",
        "rejected": f"w{10 + i}",
        "gap": i,
    }
    for i in range(7)
]
RENDERING = {"prompt": "{{ target_language }} {{ source }}\n", "source_lang": "w3", "target_lang": "w4"}


def published(cell, seed, **changes):
    tiny_llama(seed, **changes).save_pretrained(cell / "model")
    write_json(cell / "model.json", {"path": "model"})


@pytest.fixture
def cells(tmp_path):
    """A trained sft cell and a dpo cell that started from it."""
    sft = make_experiment(tmp_path)
    dpo = add_dpo(tmp_path, sft)
    published(sft, 0)
    published(dpo, 1)
    return sft, dpo


@pytest.fixture
def pair_file(tmp_path):
    return write_pairs(tmp_path / "toy.jsonl", PAIRS)


def write_pairs(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(cell, path, *options, code=0):
    assert logprobs.main([str(cell), "--pairs", str(path), *options]) == code


def results(cell, name="toy"):
    folders = sorted(cell.glob(f"preferences/{name}--*"))
    assert len(folders) == 1
    rows = [json.loads(line) for line in (folders[0] / "logps.jsonl").read_text().split("\n") if line]
    return rows, json.loads((folders[0] / "preferences.json").read_text())


@pytest.fixture
def asked(monkeypatch):
    """How many pairs a model was asked for in each batch."""
    calls = []
    asker = values._asker

    def counting(*arguments):
        ask = asker(*arguments)
        return lambda rows: calls.append(len(rows)) or ask(rows)

    monkeypatch.setattr(values, "_asker", counting)
    return calls


def live(seed, rows, corpus):
    """Values of the model itself, (pairs, 2)."""
    tokenizer = load_tokenizer(corpus)

    def ids(text, *end):
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], *end]

    encoded = [
        {
            "prompt_ids": ids(r["prompt"]),
            "chosen_ids": ids(r["chosen"], 2),
            "rejected_ids": ids(r["rejected"], 2),
        }
        for r in rows
    ]
    found, _ = completion_logps(attach_engine(tiny_llama(seed)), Collator()(encoded))
    return found.detach().view(2, len(rows)).T.numpy()


def test_values_are_those_of_policy_and_parent_in_the_order_of_the_file(cells, pair_file, tmp_path):
    run(cells[1], pair_file)
    rows, facts = results(cells[1])
    assert [row["id"] for row in rows] == [row["id"] for row in PAIRS]
    for role, seed in (("policy", 1), ("reference", 0)):
        found = [[row[f"{role}_chosen"], row[f"{role}_rejected"]] for row in rows]
        np.testing.assert_allclose(found, live(seed, PAIRS, tmp_path / "data" / "tiny.toy--0"), rtol=1e-4)
    assert [row["gap"] for row in rows] == list(range(7))
    assert all((row["chosen_tokens"], row["rejected_tokens"]) == (4, 2) for row in rows)
    assert facts["beta"] == 0.5 and facts["method"] == "dpo" and facts["rows"] == 7
    assert facts["reference"]["name"] == cells[0].name


def test_a_model_from_scratch_has_no_reference(cells, pair_file):
    run(cells[0], pair_file)
    rows, facts = results(cells[0])
    assert facts["reference"] is None and "reference_chosen" not in rows[0]


def test_no_model_is_asked_twice_for_the_same_pairs(cells, pair_file, asked, tmp_path):
    run(cells[1], pair_file)
    assert asked == [7, 7]
    run(cells[0], pair_file)  # was asked as the reference already
    run(cells[1], pair_file)
    assert asked == [7, 7]
    rows, _ = results(cells[1])
    sft, _ = results(cells[0])
    assert [row["policy_chosen"] for row in sft] == [row["reference_chosen"] for row in rows]


def test_other_pairs_of_the_same_number_are_asked_anew(cells, pair_file, tmp_path):
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    run(cells[0], pair_file)
    run(cells[0], write_pairs(tmp_path / "turned.jsonl", turned))
    first, second = results(cells[0])[0], results(cells[0], "turned")[0]
    assert [row["policy_chosen"] for row in second] == [row["policy_rejected"] for row in first]


def test_an_interrupted_run_goes_on_where_it_stopped(cells, pair_file, monkeypatch, asked):
    monkeypatch.setattr(values, "_TOKENS_A_BATCH", 1)  # each pair is a batch
    monkeypatch.setattr(values, "_BATCHES_A_PART", 3)
    write, written = PartFiles.write, []

    def interrupted(parts, number, *what):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(parts, number, *what)

    monkeypatch.setattr(PartFiles, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(cells[0], pair_file)
    assert not list(cells[0].glob("preferences/*/preferences.json"))
    assert len(asked) == 7
    monkeypatch.setattr(PartFiles, "write", write)
    run(cells[0], pair_file)
    assert len(asked) == 7 + 1, "of the third part, which was computed but never written"
    assert len(results(cells[0])[0]) == 7


def test_a_result_that_was_changed_is_written_again(cells, pair_file):
    run(cells[0], pair_file)
    before, facts = results(cells[0])
    path = next(cells[0].glob("preferences/*/logps.jsonl"))
    path.write_text("")
    run(cells[0], pair_file)
    assert results(cells[0]) == (before, facts)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("logps.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),  # of the right shape, and finite
        ("logps.npy", lambda data: data[:-9]),
        ("reference.json", lambda data: data[:-9]),
    ],
)
def test_a_damaged_value_in_the_cache_is_computed_again_and_told(
    cells, pair_file, asked, tmp_path, name, damage, capfd
):
    run(cells[0], pair_file)
    expected = results(cells[0])
    (entry,) = (tmp_path / "cache" / "logps").iterdir()
    (entry / name).write_bytes(damage((entry / name).read_bytes()))
    shutil.rmtree(cells[0] / "preferences")
    run(cells[0], pair_file)
    assert results(cells[0]) == expected
    assert f"{entry}: the stored values are damaged; they are computed again" in capfd.readouterr().err
    shutil.rmtree(cells[0] / "preferences")
    run(cells[0], pair_file)
    assert asked == [7, 7], "what was computed again is stored again"


def test_other_settings_make_another_folder(cells, pair_file):
    for options in ([], ["--no-reference"], ["--reference", str(cells[1])], ["--max-prompt-length", "9"]):
        run(cells[1], pair_file, *options)
    assert len(list(cells[1].glob("preferences/toy--*"))) == 4


def test_long_pairs_are_dropped_or_cut_and_counted(cells, tmp_path):
    long = {"id": "long", "prompt": "w5\n", "chosen": " ".join(["w7"] * 20), "rejected": "w8"}
    path = write_pairs(tmp_path / "toy.jsonl", [*PAIRS, long])
    run(cells[0], path, "--max-completion-length", "10")
    rows, facts = results(cells[0])
    assert "long" not in [row["id"] for row in rows] and facts["counts"]["dropped_long_completion"] == 1
    run(cells[0], path, "--max-completion-length", "10", "--over-long", "truncate", "--name", "cut")
    rows, facts = results(cells[0], "cut")
    assert rows[-1]["chosen_tokens"] == 10 and rows[-1]["chosen_truncated"] is True
    assert facts["counts"]["truncated_completion"] == 1


def test_a_pair_longer_than_the_models_positions_is_dropped(cells, tmp_path):
    long = {"id": "long", "prompt": "w5 " * 40, "chosen": "w7 " * 40, "rejected": "w8"}
    run(cells[0], write_pairs(tmp_path / "toy.jsonl", [*PAIRS, long]))
    _, facts = results(cells[0])
    assert facts["counts"]["dropped_long_together"] == 1 and facts["encoding"]["max_length"] == 64


def test_a_source_is_put_into_the_template_of_the_corpus(cells, tmp_path):
    unit = {"hash": "x", "rendering": RENDERING | {"max_prompt_length": 5}}
    write_json(tmp_path / "data" / "tiny.toy--0" / "unit.json", unit)
    sources = [{"id": "a", "source": "w9 w10", "tgt_lang": "w11", "chosen": "w5", "rejected": "w6"}]
    spelled = [{"id": "a", "prompt": "w11 w9 w10\n", "chosen": "w5", "rejected": "w6"}]
    run(cells[0], write_pairs(tmp_path / "sources.jsonl", sources))
    run(cells[0], write_pairs(tmp_path / "spelled.jsonl", spelled))
    found, expected = results(cells[0], "sources")[0][0], results(cells[0], "spelled")[0][0]
    assert found["policy_chosen"] == expected["policy_chosen"]
    assert found["source"] == "w9 w10" and "prompt" not in found


ROW = {"id": "7", "source": "Hello {{ x }}", "category": "greeting"}


def test_only_pairs_of_the_split_are_taken(cells, tmp_path):
    rows = [row | {"split": "test" if i % 2 else "train"} for i, row in enumerate(PAIRS)]
    path = write_pairs(tmp_path / "toy.jsonl", rows)
    run(cells[0], path, "--split", "test")
    assert [row["id"] for row in results(cells[0])[0]] == ["p1", "p3", "p5"]
    run(cells[0], path, "--split", "dev", code=65)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "w5"}, "'rejected' is missing"),
        (
            {"chosen": "w5", "rejected": "w6", "source": "w7"},
            "has no prompt, and the cell's corpus has no template",
        ),
        ({"chosen": "w5", "rejected": "w6"}, "there is no prompt"),
        ({"id": "p0", "prompt": "w4\n", "chosen": "w5", "rejected": "w6"}, "'p0' stands before already"),
        ({"prompt": "w4\n", "chosen": "w5", "rejected": ""}, "rejected is empty"),
        ({"prompt": "w4\n", "chosen": "w5", "rejected": "w6", "policy_chosen": 1}, "would be overwritten"),
        ({"prompt": "w4\n", "chosen": "w5", "rejected": "w6", "images": ["a.png"]}, "has images"),
    ],
)
def test_a_pair_that_cannot_be_scored_is_told_by_its_place(cells, tmp_path, row, message, capsys):
    run(cells[0], write_pairs(tmp_path / "toy.jsonl", [*PAIRS, row]), code=65)
    assert message in capsys.readouterr().err
    assert not list(cells[0].glob("preferences/*"))


def test_a_cell_or_reference_that_is_not_trained_is_refused(cells, pair_file, capsys):
    (cells[0] / "model.json").unlink()
    run(cells[0], pair_file, code=65)
    run(cells[1], pair_file, code=65)
    assert capsys.readouterr().err.count("is not trained yet") == 2


def test_an_experiment_stands_for_its_trained_cells(cells, pair_file, tmp_path, capsys):
    (cells[1] / "model.json").unlink()
    run(tmp_path, pair_file)
    assert capsys.readouterr().out.count("logps.jsonl") == 1
    run(tmp_path / "data", pair_file, code=65)


def test_a_template_that_names_an_unknown_column_lists_those_that_are_there():
    with pytest.raises(InputFault, match="columns of this row: category, id, source"):
        render("{{ sorce }}", ROW, "en", "de")


def test_the_vocabulary_holds_the_words_of_these_tests():
    words = {int(w[1:]) for row in PAIRS for k in ("prompt", "chosen", "rejected") for w in row[k].split()}
    assert max(words) < VOCABULARY
