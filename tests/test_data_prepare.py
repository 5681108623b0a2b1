"""Training data of every form, prepared: what train.jsonl and sft.jsonl hold, what is cut and counted."""

from pathlib import Path
from typing import Any

import pytest
from prepared import Study, done
from tiny_tokenizers import CHAT

from experiments import data_rows, prepare
from experiments.tokenizing import completion_ids, load_saved, prompt_ids
from po.rows import read_training_rows

LABELS = {"columns": {"source": "q", "completion": "a", "label": "good"}}
RANKS = {"columns": {"source": "q", "completions": "outs", "scores": "marks"}}
LABELLED = [{"q": "one", "a": "eins", "good": True}, {"q": "one", "a": "zwei", "good": False}]
RANKED = [
    {"q": "one", "outs": ["zwei", "eins", "ein"], "marks": [0, 9, 5]},
    {"q": "two", "outs": ["zwei", "two"], "marks": [7, 7]},
]
SYSTEM, ASK = {"role": "system", "content": "Count."}, {"role": "user", "content": "one?"}


def prepared(study: Study, rows: list[dict[str, Any]], **source: Any) -> tuple[Any, Any, dict[str, Any], Any]:
    """Rows of train and sft, the counts of both, the tokenizer."""
    folder = study.corpus(study.source("train", rows, **source))
    facts = done(folder)
    train, sft = (prepare.read_jsonl(folder / f"{split}.jsonl") for split in ("train", "sft"))
    counts = {
        split: {key: count for key, count in found.items() if count and not key.endswith("_tokens")}
        for split, found in facts["splits"].items()
    }
    return train, sft, counts, load_saved(folder / "tokenizer")


def test_labelled_completions_train_both_ways_and_fine_tuning_takes_the_desirable(tmp_path: Path) -> None:
    study = Study(tmp_path)
    train, sft, counts, tokenizer = prepared(study, LABELLED, **LABELS)
    assert [(row["completion"], row["desirable"]) for row in train] == [("eins", True), ("zwei", False)]
    assert train[0]["completion_ids"] == completion_ids(tokenizer, "one\n", "eins")
    assert [row["completion_ids"] for row in sft] == [train[0]["completion_ids"]]
    assert counts == {"train": {"rows": 2}, "sft": {"rows": 1, "dropped_undesirable": 1}}
    assert len(read_training_rows(tmp_path / "data/corpus/train.jsonl", "unpaired")) == 2


def test_rankings_are_kept_whole_and_fine_tuning_takes_the_best(tmp_path: Path) -> None:
    train, sft, counts, tokenizer = prepared(Study(tmp_path), RANKED, **RANKS)
    assert train[0]["candidates"] == ["eins", "ein", "zwei"]
    assert train[0]["candidates_ids"] == [
        completion_ids(tokenizer, "one\n", text) for text in train[0]["candidates"]
    ]
    assert train[0]["candidates_scores"] == [9.0, 5.0, 0.0]
    assert [row["completion_ids"] for row in sft] == [
        completion_ids(tokenizer, f"{row['source']}\n", row["candidates"][0]) for row in train
    ]
    assert len(read_training_rows(tmp_path / "data/corpus/train.jsonl", "ranked")) == 2
    assert counts == {"train": {"rows": 2}, "sft": {"rows": 2}}


def test_rankings_become_pairs_where_the_source_says_so(tmp_path: Path) -> None:
    train, sft, counts, _ = prepared(Study(tmp_path), RANKED, **RANKS, pairing="adjacent", min_gap=4.0)
    assert [(row["id"], row["chosen"], row["rejected"]) for row in train] == [
        ("0-0", "eins", "ein"),
        ("0-1", "ein", "zwei"),
    ]
    assert (train[1]["chosen_score"], train[1]["rejected_score"]) == (5.0, 0.0)
    assert counts["train"] == {"rows": 2, "dropped_without_pair": 1}
    assert [row["id"] for row in sft] == ["0", "1"]  # each question once, however many pairs it gives
    assert len(read_training_rows(tmp_path / "data/corpus/train.jsonl", "paired")) == 2


def test_conversations_are_rendered_and_their_turns_stay_in_the_row(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.rendering |= {"chat_template": CHAT, "max_prompt_length": 60}
    rows = [
        {"chosen": [SYSTEM, ASK, answer("eins")], "rejected": [SYSTEM, ASK, answer("zwei")]},
        {"chosen": [ASK, answer("eins")], "rejected": [ASK, answer("zwei")]},
    ]
    columns = {"chosen": "chosen", "rejected": "rejected"}
    (whole, single), _, _, tokenizer = prepared(study, rows, columns=columns)
    assert whole["prompt"] == "<s>[system]Count.[user]one?[assistant]"
    assert whole["messages"] == [SYSTEM, ASK]
    assert whole["prompt_ids"] == prompt_ids(tokenizer, [SYSTEM, ASK])
    assert tokenizer.decode(whole["chosen_ids"]) == "eins</s>"
    assert (whole["source"], whole["chosen"], whole["rejected"]) == ("one?", "eins", "zwei")
    assert single["prompt"] == "one?"
    assert "messages" not in single


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_rows_of_a_known_data_set_are_read_by_its_adapter(tmp_path: Path) -> None:
    row = {"source": "eins", "lp": "de-en", "chosen": "one", "rejected": "two"}
    study = Study(tmp_path)
    study.rendering["prompt"] = "{{ source_language }}>{{ target_lang }}: {{ source }}\n"
    (first, second), _, _, _ = prepared(study, [row, row | {"lp": "fr-en"}], adapter="mt_pref")
    # every row in its own direction, whatever the task's is
    assert (first["prompt"], second["prompt"]) == ("German>en: eins\n", "French>en: eins\n")
    assert (first["category"], first["chosen"]) == ("de-en", "one")


def test_what_cannot_be_learned_from_is_counted_and_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path)
    study.rendering |= {"empty": "drop", "duplicates": "drop"}
    good = {"source": "one", "chosen": "eins", "rejected": "zwei"}
    long = good | {"source": "one two " * 40}
    rows = [good, good, good | {"rejected": "eins"}, good | {"chosen": " "}, long, good | {"source": "two"}]
    columns = {"chosen": "chosen", "rejected": "rejected"}
    train, _, counts, _ = prepared(study, rows, columns=columns)
    assert [row["id"] for row in train] == ["0", "5"]
    told = {
        "rows": 2,
        "dropped_long_prompt": 1,
        "dropped_empty": 1,
        "dropped_equal": 1,
        "dropped_duplicate": 1,
    }
    assert counts["train"] == told
    line = "train: 2 rows; dropped 1 long prompt, 1 empty, 1 equal, 1 duplicate\n"
    assert line in capsys.readouterr().err


def test_a_split_of_which_nothing_is_left_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path)
    same = {"source": "one", "chosen": "eins", "rejected": "eins"}
    columns = {"chosen": "chosen", "rejected": "rejected"}
    folder = study.corpus(study.source("train", [same, same | {"source": "two"}], columns=columns))
    assert prepare.main([str(folder)]) == 65
    said = capsys.readouterr().err
    assert "no row of split 'sft' can be learned from: 0 rows; dropped 2 equal; look at its columns" in said
    assert not (folder / "prepare.json").exists()


def test_the_row_that_a_choice_makes_an_error_of_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path)
    study.rendering["over_long"] = "error"
    folder = study.corpus(study.source("sft", [{"id": "x", "source": "one " * 60, "reference": "eins"}]))
    assert prepare.main([str(folder)]) == 65
    assert "error: row 'x': the prompt has" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["keep_end", "keep_start"])
def test_long_prompts_are_cut_alike_in_training_and_test(tmp_path: Path, mode: str) -> None:
    study = Study(tmp_path)
    study.rendering |= {"over_long": "truncate", "truncation": mode, "max_prompt_length": 6}
    long = {"source": " ".join("abcdefghij"), "reference": "eins " * 30}
    (row,), _, counts, tokenizer = prepared(study, [long])
    whole = prompt_ids(tokenizer, long["source"] + "\n")
    kept = whole[:6] if mode == "keep_start" else [whole[0], *whole[-5:]]
    assert row["prompt_ids"] == kept
    assert (row["prompt_truncated"], row["completion_truncated"]) == (True, True)
    assert tokenizer.eos_token_id not in row["completion_ids"]
    assert counts["train"] == {"rows": 1, "truncated_prompt": 1, "truncated_completion": 1}
    folder = study.test(study.source("test", [long, {"source": "a", "reference": "b"}]))
    assert done(folder)["truncated_prompt"] == 1
    asked, short = prepare.read_jsonl(folder / "rows.jsonl")
    assert (asked["prompt_ids"], asked["prompt_truncated"]) == (kept, True)
    assert "prompt_truncated" not in short


def test_an_encoder_decoder_is_prepared_with_its_tokenizers_own_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path)
    folder = study.corpus(study.source("sft", [{"source": "one", "reference": "eins"}]))
    monkeypatch.setattr(data_rows, "is_encoder_decoder", lambda model: True)
    done(folder)
    (row,) = prepare.read_jsonl(folder / "train.jsonl")
    tokenizer = load_saved(folder / "tokenizer")
    assert row["prompt_ids"] == tokenizer("one\n")["input_ids"]
    assert row["completion_ids"] == [*tokenizer(text_target="eins")["input_ids"], tokenizer.eos_token_id]
