"""Rows of known data sets under our columns, and one form of rows out of another; all rows made by hand."""

from typing import Any

import pytest
from tiny_tokenizers import tokenizer

from po.data import (
    ADAPTERS,
    EncodeSettings,
    adapter_named,
    encode_rows,
    pairs_from_ranked,
    unpaired_from_pairs,
)
from po.data.forms import form_of
from po.faults import InputFault

TASK = "Translate the following German source text to English:\nGerman: Guten Tag.\nEnglish: "
MT_PREF = {
    "prompt": f"<|im_start|>user\n{TASK}<|im_end|>\n<|im_start|>assistant\n",
    "chosen": "Good day.",
    "rejected": "Good dag.",
}
COMPARISON = {
    "info": {
        "id": "t3_abc",
        "post": "My cat sleeps all day.\nIs that fine?",
        "title": "Cat",
        "subreddit": "pets",
        "site": None,
        "article": None,
    },
    "summaries": [
        {"text": " Cat sleeps.", "policy": "sup1", "note": None},
        {"text": " Cat sleeps all day, is it fine?", "policy": "ref", "note": "short"},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "batch3",
    "split": "train",
    "extra": {"confidence": None},
}
TLDR_PROMPT = "SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: My cat sleeps all day.\nIs that fine?\n\nTL;DR:"
RANKED = {"id": "7", "prompt": "a", "completions": ["w", "b", "t", "m"], "scores": [1.0, 4.0, 3.0, 3.0]}


def adapted(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return adapter_named(name).convert(row)


def refused(name: str, row: dict[str, Any]) -> str:
    with pytest.raises(InputFault) as raised:
        adapted(name, row)
    return str(raised.value)


def test_mt_pref_loses_the_marks_of_chatml_and_keeps_the_prompt() -> None:
    assert adapted("mt_pref", MT_PREF) == {
        "prompt": TASK,
        "chosen": "Good day.",
        "rejected": "Good dag.",
        "source": "Guten Tag.",
        "category": "German-English",
    }


def test_mt_pref_with_a_system_turn_is_a_conversation() -> None:
    system = "<|im_start|>system\nBe exact.<|im_end|>\n"
    found = adapted("mt_pref", MT_PREF | {"prompt": system + MT_PREF["prompt"]})
    assert found["prompt"] == [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": TASK},
    ]
    assert found["source"] == "Guten Tag."


def test_mt_pref_of_other_prompts_is_taken_as_it_is() -> None:
    found = adapted("mt_pref", MT_PREF | {"prompt": "Say it in English: Guten Tag."})
    assert found == {
        "prompt": "Say it in English: Guten Tag.",
        "chosen": "Good day.",
        "rejected": "Good dag.",
    }


def test_mt_pref_with_source_and_direction_leaves_the_prompt_to_the_task() -> None:
    row = {"source": "Guten Tag.", "lp": "de-en", "chosen": "Good day.", "rejected": "Good dag."}
    scores = {"chosen_score": 0.97, "rejected_score": 0.5, "best_response": "Good day.", "TowerInstruct": "x"}
    assert adapted("mt_pref", row | scores) == {
        "source": "Guten Tag.",
        "category": "de-en",
        "source_lang": "de",
        "target_lang": "en",
        "chosen": "Good day.",
        "rejected": "Good dag.",
        "chosen_score": 0.97,
        "rejected_score": 0.5,
    }


@pytest.mark.parametrize("choice", [0, 1])
def test_the_chosen_summary_of_a_comparison_is_the_one_that_was_chosen(choice: int) -> None:
    texts = ["Cat sleeps.", "Cat sleeps all day, is it fine?"]
    assert adapted("summarize_from_feedback", COMPARISON | {"choice": choice}) == {
        "source": "My cat sleeps all day.\nIs that fine?",
        "prompt": TLDR_PROMPT,
        "category": "pets",
        "chosen": texts[choice],
        "rejected": texts[1 - choice],
    }


def test_a_comparison_of_news_is_about_the_article() -> None:
    info = {"id": "1", "post": None, "title": "T", "subreddit": None, "site": "cnn", "article": "It rained."}
    found = adapted("summarize_from_feedback", COMPARISON | {"info": info})
    assert (found["source"], found["category"]) == ("It rained.", "cnn")
    assert found["prompt"] == "Article:\nIt rained.\n\nTL;DR:"


def test_posts_with_their_own_summary_have_the_prompt_of_the_comparisons() -> None:
    found = adapted("tldr", {**COMPARISON["info"], "summary": " Cat sleeps. "})
    assert found["prompt"] == TLDR_PROMPT
    assert found["completion"] == "Cat sleeps."


def test_rated_segments_are_rankings_of_the_systems_that_have_a_score() -> None:
    outputs = [
        {"system": "a", "text": "eins", "score": -1.0},
        {"system": "b", "text": "zwei", "score": None},
        {"system": "c", "text": "drei", "score": 0.0},
    ]
    row = {"id": "s1", "source": "one", "src_lang": "en", "tgt_lang": "de", "outputs": outputs}
    found = adapted("wmt_mqm", row)
    assert (found["id"], found["source"], found["target_lang"]) == ("s1", "one", "de")
    assert (found["completions"], found["scores"]) == (["eins", "drei"], [-1.0, 0.0])


def test_a_prompt_inside_both_sides_is_taken_out_where_the_adapter_says_so() -> None:
    found = adapted("implicit_prompt", {"id": 3, "chosen": "The sky is blue", "rejected": "The sky is red"})
    assert found == {"id": 3, "prompt": "The sky is", "chosen": " blue", "rejected": " red"}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("mt_pref", MT_PREF),
        ("summarize_from_feedback", COMPARISON),
        ("tldr", {**COMPARISON["info"], "summary": "Cat sleeps."}),
    ],
)
def test_what_an_adapter_makes_has_the_form_that_it_says_and_can_be_encoded(name: str, row: Any) -> None:
    found = adapted(name, row)
    assert form_of(found) == ADAPTERS[name].form
    (ids,), counts = encode_rows([found], tokenizer(), EncodeSettings())
    assert ids["prompt_ids"]
    assert counts["rows"] == 1


def test_missing_fields_are_named_with_what_is_there() -> None:
    assert refused("mt_pref", {"chosn": "a", "rejected": "b"}) == (
        "the adapter mt_pref needs 'chosen'; did you mean 'chosn'? The columns are: chosn, rejected"
    )
    assert "needs 'lp'" in refused("mt_pref", {"source": "x", "chosen": "a", "rejected": "b"})
    assert "1 summaries and choice 1" in refused("summarize_from_feedback", COMPARISON | {"summaries": [{}]})
    assert "2 summaries and choice 2" in refused("summarize_from_feedback", COMPARISON | {"choice": 2})
    with pytest.raises(InputFault, match="there is no adapter 'mt_pre'; did you mean 'mt_pref'"):
        adapter_named("mt_pre")


def test_a_pair_of_texts_gives_two_labelled_completions() -> None:
    pair = {
        "id": "x",
        "prompt": "a",
        "chosen": "b",
        "rejected": "c",
        "chosen_score": 2.0,
        "rejected_score": 1.0,
    }
    assert unpaired_from_pairs(pair) == [
        {"id": "x-chosen", "prompt": "a", "completion": "b", "label": True},
        {"id": "x-rejected", "prompt": "a", "completion": "c", "label": False},
    ]


def test_a_pair_of_ids_gives_two_rows_of_ids_with_what_belongs_to_each() -> None:
    pair = {
        "prompt_ids": [1],
        "chosen_ids": [2],
        "rejected_ids": [3],
        "prompt_truncated": True,
        "rejected_truncated": True,
        "reference_chosen": -4.0,
        "reference_rejected": -5.0,
        "win_probability": 0.9,
        "images": ["x"],
    }
    shared = {"prompt_ids": [1], "prompt_truncated": True, "images": ["x"]}
    assert unpaired_from_pairs(pair) == [
        shared | {"completion_ids": [2], "reference": -4.0, "desirable": True},
        shared | {"completion_ids": [3], "reference": -5.0, "completion_truncated": True, "desirable": False},
    ]
    with pytest.raises(InputFault, match="a pair has chosen and rejected; this row has chosen, prompt"):
        unpaired_from_pairs({"prompt": "a", "chosen": "b"})


@pytest.mark.parametrize(
    ("how", "gap", "pairs"),
    [
        ("best-worst", 0.0, ["bw"]),
        ("adjacent", 0.0, ["bt", "mw"]),  # t and m have one score
        ("all", 0.0, ["bt", "bm", "bw", "tw", "mw"]),
        ("adjacent", 2.0, ["mw"]),
        ("all", 2.0, ["bw", "tw", "mw"]),
        ("best-worst", 3.5, []),
    ],
)
def test_pairs_of_a_ranking_differ_in_score_by_the_gap_at_least(
    how: Any, gap: float, pairs: list[str]
) -> None:
    found = pairs_from_ranked(RANKED, how, gap)
    assert [row["chosen"] + row["rejected"] for row in found] == pairs
    scores = dict(zip("wbtm", [1.0, 4.0, 3.0, 3.0], strict=True))
    for row in found:
        assert (row["chosen_score"], row["rejected_score"]) == (
            scores[row["chosen"]],
            scores[row["rejected"]],
        )
        assert row["prompt"] == "a"
        assert form_of(row) == "paired"
    expected = ["7"] if len(pairs) == 1 else [f"7-{number}" for number in range(len(pairs))]
    assert [row["id"] for row in found] == expected


def test_a_ranking_without_scores_is_paired_by_its_order_and_has_no_gaps() -> None:
    row = {"prompt": "a", "candidates": ["first", "second", "third"]}
    assert pairs_from_ranked(row) == [{"prompt": "a", "chosen": "first", "rejected": "third"}]
    assert len(pairs_from_ranked(row, "all")) == 3
    with pytest.raises(InputFault, match="min_gap compares scores, and this ranking has none"):
        pairs_from_ranked(row, "all", 1.0)
    with pytest.raises(InputFault, match="pairing is 'best-wrst'; did you mean 'best-worst'"):
        pairs_from_ranked(row, "best-wrst")  # type: ignore[arg-type]
