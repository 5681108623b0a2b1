"""The card of a trained model: true, complete, and what is pushed to the hub."""

import dataclasses
import re
import types
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from tiny_library import library_trainer, text_pairs, word_tokenizer
from tiny_training import random_pairs

from po import METHODS
from po.methods import resolve
from po.rows import rows_digest
from po.training.citations import citations, cited
from po.training.model_card import CardFacts, DataFacts, model_card, versions, write_model_card


def facts(method="dpo", **more):
    method = resolve(method)
    given = {"name": "mine", "start": "someone/base", "method": method, "params": method.check_params({})}
    return CardFacts(**given | more)


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def cells(text):
    """Of the two-column tables of a card: what stands in the first column -> what in the second."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, flags=re.MULTILINE))


def test_the_card_says_how_the_model_was_made(tmp_path):
    rows, eval_rows = random_pairs(8), random_pairs(4, seed=5)
    trainer = library_trainer(tmp_path, rows, "cpo:simpo", simpo_gamma=0.7, eval_rows=eval_rows, seed=11)
    trainer.train()
    evaluated = trainer.evaluate()
    trainer.save_model(str(tmp_path / "saved"))
    text = (tmp_path / "saved" / "README.md").read_text()
    found = cells(text)
    assert header_of(text)["library_name"] == "transformers"
    assert {"preference-optimization", "cpo_simpo"} <= set(header_of(text)["tags"])
    assert METHODS["cpo_simpo"].formula in text
    expected = {"gamma": "0.7", "nll_weight": "1", "seed": "11", "steps": "2", "learning rate": "0.001"}
    assert {name: found[name] for name in expected} == expected
    assert found["examples per step"] == "4" and found["weights"] == "float32"
    assert float(found["eval_loss"]) == pytest.approx(evaluated["eval_loss"], rel=1e-4)
    assert found["torch"] == versions()["torch"]
    assert f"training: 8 rows, SHA-256 of their token ids `{rows_digest(rows)}`" in text
    assert f"evaluation: 4 rows, SHA-256 of their token ids `{rows_digest(eval_rows)}`" in text


def test_the_reference_is_told_where_there_is_one(tmp_path):
    dpo = library_trainer(tmp_path / "dpo", random_pairs(4), precompute_ref_log_probs=True)
    dpo.create_model_card()
    told = "Reference: the model that training started from, asked before training."
    assert told in (tmp_path / "dpo" / "out" / "README.md").read_text()
    simpo = library_trainer(tmp_path / "simpo", random_pairs(4), "simpo")
    simpo.create_model_card()
    assert "Reference:" not in (tmp_path / "simpo" / "out" / "README.md").read_text()


def test_every_checkpoint_has_a_card(tmp_path):
    trainer = library_trainer(tmp_path, random_pairs(8), save_strategy="steps", save_steps=1)
    trainer.train()
    steps = [cells((tmp_path / "out" / f"checkpoint-{n}" / "README.md").read_text())["steps"] for n in (1, 2)]
    assert steps == ["1", "2"]


def test_what_is_on_the_hub_is_linked_and_what_is_on_a_disk_is_not_told():
    data = [DataFacts(use="training", name="someone/pairs", rows=3, sha256="0")]
    on_hub = model_card(facts(data=data))
    assert header_of(on_hub)["base_model"] == "someone/base" and header_of(on_hub)["datasets"] == [
        "someone/pairs"
    ]
    assert "[someone/base](https://huggingface.co/someone/base)" in on_hub
    on_disk = model_card(facts(start="/home/me/secret/base-model"))
    assert "base_model" not in header_of(on_disk) and "secret" not in on_disk
    assert "`base-model`, trained with the method `dpo`" in on_disk


def test_an_expression_cites_all_of_its_parts():
    assert [part.name for part in cited(resolve("wpo(ipo)"))] == ["wpo(ipo)", "ipo"]
    assert [part.name for part in cited(METHODS["wpo"])] == ["wpo", "dpo"]
    assert [part.name for part in cited(METHODS["mixed_mpo"])] == ["mixed_mpo", "dpo", "bco_pair", "sft"]
    text = model_card(facts("wpo(ipo)"))
    assert "2406.11827" in text and "2310.12036" in text and METHODS["ipo"].formula in text
    assert header_of(text)["tags"] == ["preference-optimization", "wpo-ipo", "ipo"]
    assert len(citations(resolve("tr_dpo(dpo)"))) == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_source_is_an_entry(name):
    entries = citations(METHODS[name])
    assert bool(entries) == (name != "sft")
    for entry in entries:
        assert re.fullmatch(r"@misc\{\w+,\n(  \w+ = \{.*\},?\n)+\}", entry), entry


def test_a_paper_is_cited_by_authors_year_and_number():
    (entry,) = citations(METHODS["simpo"])
    assert "author = {Meng and Xia and Chen}" in entry and "year = {2024}" in entry
    assert "eprint = {2405.14734}" in entry
    assert "author = {Rafailov and others}" in citations(METHODS["dpo"])[0]


def test_a_method_of_ones_own_is_cited_by_its_note():
    (entry,) = citations(dataclasses.replace(METHODS["simpo"], name="mine", paper="this test"))
    assert "note = {this test}" in entry


def test_keys_of_citations_are_not_used_twice():
    entries = {entry for method in METHODS.values() for entry in citations(method)}
    keys = [entry.split("{")[1].split(",")[0] for entry in entries]
    assert sorted(keys) == sorted(set(keys))


def test_the_card_of_an_adapter_is_of_peft():
    text = model_card(facts(adapter=True, header={"tags": "mine", "license": "mit", "language": None}))
    found = header_of(text)
    assert found["library_name"] == "peft" and found["license"] == "mit" and "language" not in found
    assert found["tags"] == ["preference-optimization", "dpo", "lora", "mine"]


def test_a_card_replaces_the_one_that_was_there(tmp_path):
    (tmp_path / "README.md").write_text("old")
    assert write_model_card(tmp_path, facts()) == tmp_path / "README.md"
    assert "old" not in (tmp_path / "README.md").read_text()


class FakeHub:
    """Stands in for the hub's client; notes what lies in the folder when it is uploaded."""

    def __init__(self):
        self.created, self.uploads = [], []

    def create_repo(self, name, **kwargs):
        self.created.append(name)
        return types.SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, repo_id, folder_path, commit_message, **kwargs):
        card = (Path(folder_path) / "README.md").read_text()
        self.uploads.append(
            (repo_id, commit_message, card, sorted(p.name for p in Path(folder_path).iterdir()))
        )
        return types.SimpleNamespace(is_done=lambda: True, result=lambda: None)


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: fake)
    return fake


def test_our_card_is_what_is_pushed(tmp_path, hub):
    dataset = Dataset.from_list(text_pairs())
    dataset.info.download_checksums = {"hf://datasets/someone/pairs@0123abc/train.parquet": {}}
    trainer = library_trainer(
        tmp_path, dataset, "ipo", processing_class=word_tokenizer(), push_to_hub=True, hub_model_id="mine"
    )
    trainer.train()
    trainer.push_to_hub(tags=["translation"], license="mit")
    repo, message, card, files = hub.uploads[-1]
    assert hub.created == ["mine"] and (repo, message) == ("me/mine", "End of training")
    assert "# mine" in card and METHODS["ipo"].formula in card and cells(card)["steps"] == "2"
    found = header_of(card)
    assert found["license"] == "mit" and found["datasets"] == ["someone/pairs"]
    assert {"ipo", "translation"} <= set(found["tags"])
    assert {"README.md", "model.safetensors", "tokenizer.json"} <= set(files)


def test_saving_pushes_where_that_was_asked_for(tmp_path, hub):
    trainer = library_trainer(tmp_path, random_pairs(8), push_to_hub=True)
    trainer.train()
    before = len(hub.uploads)
    trainer.save_model()
    assert hub.created == ["out"] and len(hub.uploads) == before + 1
    assert hub.uploads[-1][:2] == ("me/out", "Model save") and METHODS["dpo"].formula in hub.uploads[-1][2]
