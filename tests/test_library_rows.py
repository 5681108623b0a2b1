"""Data sets of library users: forms, limits, and what is refused."""

import pytest
from datasets import Dataset
from tiny_library import library_trainer, text_pairs, word_tokenizer
from tiny_training import EOS, random_pairs

from po import PreferenceConfig
from po.faults import InputFault
from po.library.rows import prepare_rows, source_of

PAIR = {"prompt_ids": [1, 11, 12, 13, 14, 15], "chosen_ids": [21, 22, 23, EOS], "rejected_ids": [31, EOS]}


def prepared(rows, method="dpo", tokenizer=None, **settings):
    args = PreferenceConfig("out", method=method, report_to="none", use_cpu=True, **settings)
    return prepare_rows(rows, "train_dataset", args, tokenizer, encoder_decoder=False)


def total_length(row):
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def test_prompts_give_way_first_and_keep_their_bos():
    (cut,) = prepared([PAIR], tokenizer=word_tokenizer(bos=True), max_length=8)
    assert cut["prompt_ids"] == [1, 13, 14, 15]
    assert cut["chosen_ids"] == PAIR["chosen_ids"] and cut["rejected_ids"] == PAIR["rejected_ids"]
    (cut,) = prepared([PAIR], max_length=8, truncation="keep_start")
    assert cut["prompt_ids"] == [1, 11, 12, 13]


@pytest.mark.parametrize("limit", range(2, 14))
def test_no_row_is_longer_than_the_limit(limit):
    rows = prepared(random_pairs(30), max_length=limit, equal_pairs="keep")
    assert len(rows) == 30 and all(total_length(row) <= limit for row in rows)
    assert all(row["prompt_ids"] and row["chosen_ids"] and row["rejected_ids"] for row in rows)


def test_rows_over_the_limit_are_dropped_or_refused_where_that_is_wanted():
    longest = [total_length(row) for row in random_pairs(30)]
    kept = prepared(random_pairs(30), max_length=9, over_long="drop")
    assert len(kept) == sum(length <= 9 for length in longest)
    with pytest.raises(InputFault, match=r"train_dataset: row \d+: .* max_length, less the prompt"):
        prepared(random_pairs(30), max_length=9, over_long="error")


def test_pairs_that_are_equal_once_they_are_cut_are_dropped():
    alike = {"prompt_ids": [1, 2], "chosen_ids": [5, 6, 7, EOS], "rejected_ids": [5, 6, 8, EOS]}
    assert len(prepared([alike, PAIR], max_length=4)) == 1
    assert len(prepared([alike, PAIR], max_length=4, equal_pairs="keep")) == 2


def test_limits_hold_for_ids_as_for_texts():
    tokenizer = word_tokenizer(bos=True)
    texts = text_pairs(20)
    whole = prepared(texts, tokenizer=tokenizer)
    limits = {"max_prompt_length": 4, "max_completion_length": 3}
    of_texts = prepared(texts, tokenizer=tokenizer, **limits)
    of_ids = prepared([dict(row) for row in whole], tokenizer=tokenizer, **limits)
    assert list(of_texts) == list(of_ids)
    assert max(len(row["prompt_ids"]) for row in of_ids) == 4
    assert all(row["prompt_ids"][0] == 1 for row in of_ids)


def test_what_was_dropped_and_cut_is_told_in_a_line(caplog):
    prepared([PAIR, {**PAIR, "rejected_ids": PAIR["chosen_ids"]}], max_prompt_length=3)
    assert "train_dataset: 1 rows; dropped 1 equal; truncated 1 prompt" in caplog.text


def test_columns_that_a_data_set_fills_up_are_not_read():
    rows = Dataset.from_list([{**PAIR, "candidates_ids": None}, PAIR])
    assert [set(row) for row in prepared(rows)] == [set(PAIR)] * 2


@pytest.mark.parametrize(
    ("rows", "method", "message"),
    [
        ([], "dpo", "train_dataset has no rows"),
        ([{"prompt_ids": [1]}], "dpo", r"row 0 of ids \(prompt_ids\) has no completion"),
        ([{**PAIR, "chosen_ids": []}], "dpo", "row 0 of ids .* without tokens"),
        (text_pairs(2), "dpo", "train_dataset: texts need a tokenizer; give processing_class"),
        (
            [PAIR],
            "pl_dpo",
            r"pl_dpo learns from rankings .*row 0 is paired, from which these learn: sft, .*kto",
        ),
        (
            [{"prompt_ids": [1], "completion_ids": [2], "desirable": True}],
            "dpo",
            r"dpo learns from pairs \(prompt, chosen, rejected\); row 0 is unpaired, .*: kto, ",
        ),
        (
            [{"prompt_ids": [1], "candidates_ids": [[2], [3]]}],
            "dpo",
            "make pairs of them with po.data.pairs_from_ranked",
        ),
        ([PAIR], "odpo", "odpo needs chosen_score; row 0 has none"),
    ],
)
def test_rows_from_which_a_method_cannot_learn_are_refused(rows, method, message):
    with pytest.raises(InputFault, match=message):
        prepared(rows, method)


def test_scores_of_the_data_reach_the_loss(tmp_path):
    rows = [
        row | {"chosen_score": 0.9, "rejected_score": 0.2 + 0.05 * i} for i, row in enumerate(random_pairs(8))
    ]
    trainer = library_trainer(tmp_path, rows, "odpo", transform="identity", precompute_ref_log_probs=True)
    gaps = sum(row["chosen_score"] - row["rejected_score"] for row in rows) / 8
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0.6931 and gaps > 0


def test_a_data_set_of_the_hub_is_known_by_its_id():
    dataset = Dataset.from_list(text_pairs(2))
    assert source_of(dataset) == "" and source_of([]) == ""
    dataset.info.dataset_name = "pairs"
    assert source_of(dataset) == "pairs"
    dataset.info.download_checksums = {"hf://datasets/someone/pairs@0123abc/train.parquet": {}}
    assert source_of(dataset) == "someone/pairs"
