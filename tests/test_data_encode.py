"""Data sets of every form -> rows of token ids, with exactly the keys of their form."""

from typing import Any

import pytest
from datasets import Dataset
from tiny_tokenizers import CHAT, tokenizer
from trl.data_utils import apply_chat_template, maybe_extract_prompt

from po.data import EncodeSettings, encode_rows
from po.data.forms import with_prompt
from po.data.tokenize import completion_ids, prompt_ids
from po.faults import InputFault

USER = {"role": "user", "content": "one?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("two", "three"))


@pytest.fixture(scope="module")
def plain() -> Any:
    return tokenizer()


def encoded(rows: Any, habit: Any, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    found, counts = encode_rows(rows, habit, EncodeSettings(**settings))
    return found, {key: value for key, value in counts.items() if value}


def test_pairs_have_their_three_ids_and_what_the_data_say_of_them(plain: Any) -> None:
    row = {
        "prompt": "one?\n",
        "chosen": "two",
        "rejected": "three",
        "chosen_score": 2,
        "win_probability": 0.8,
    }
    (found, bare), counts = encoded(
        [row | {"topic": "x"}, {"prompt": "a", "chosen": "b", "rejected": "c"}], plain
    )
    assert found == {
        "prompt_ids": prompt_ids(plain, "one?\n"),
        "chosen_ids": completion_ids(plain, "one?\n", "two"),
        "rejected_ids": completion_ids(plain, "one?\n", "three"),
        "chosen_score": 2.0,
        "win_probability": 0.8,
    }
    assert set(bare) == {"prompt_ids", "chosen_ids", "rejected_ids"}
    assert counts == {"rows": 2}


def test_implicit_and_explicit_prompts_give_the_same_ids(plain: Any) -> None:
    explicit = {"prompt": "The sky is", "chosen": " blue.", "rejected": " deep."}
    implicit = {"chosen": "The sky is blue.", "rejected": "The sky is deep."}
    assert encoded([explicit], plain) == encoded([implicit], plain)
    (row,), _ = encoded([implicit], plain)
    for side in ("chosen", "rejected"):
        assert plain.decode(row["prompt_ids"][1:] + row[f"{side}_ids"][:-1]) == implicit[side]


def test_conversations_go_through_the_chat_template() -> None:
    habit = tokenizer(template=CHAT)
    rows = [
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": "one?", "chosen": "two", "rejected": "three"},
    ]
    found, counts = encoded(rows, habit)
    assert found[0] == found[1] == found[2]
    assert habit.decode(found[0]["prompt_ids"] + found[0]["chosen_ids"]) == "<s>[user]one?[assistant]two</s>"
    assert counts == {"rows": 3, "kept_duplicate": 2}


def test_labels_become_truth_values(plain: Any) -> None:
    rows = [{"prompt": "a\n", "completion": text, "label": text == "good"} for text in ("good", "bad")]
    found, _ = encoded(rows, plain)
    assert [row.pop("desirable") for row in found] == [True, False]
    assert found[0] == {
        "prompt_ids": prompt_ids(plain, "a\n"),
        "completion_ids": completion_ids(plain, "a\n", "good"),
    }


def test_rankings_hold_their_candidates_best_first(plain: Any) -> None:
    row = {"prompt": "a\n", "completions": ["low", "high"], "scores": [1, 2]}
    (found,), _ = encoded([row], plain)
    assert found == {
        "prompt_ids": prompt_ids(plain, "a\n"),
        "candidates_ids": [completion_ids(plain, "a\n", text) for text in ("high", "low")],
        "candidates_scores": [2.0, 1.0],
    }
    (found,), _ = encoded([{"prompt": "a\n", "candidates": ["first", "second"]}], plain)
    assert set(found) == {"prompt_ids", "candidates_ids"}


def test_supervised_rows_and_images_pass(plain: Any) -> None:
    image = object()
    (found, chat), _ = encoded(
        [{"prompt": "a\n", "completion": "b", "images": [image]}, {"messages": [USER, YES]}], plain
    )
    assert found.pop("images") == [image]
    assert set(found) == set(chat) == {"prompt_ids", "completion_ids"}


def test_a_data_set_of_datasets_is_taken_as_it_is(plain: Any) -> None:
    data = Dataset.from_dict({"prompt": ["a\n", "b\n"], "chosen": ["c", "d"], "rejected": ["e", "f"]})
    assert encoded(data, plain) == encoded(data.to_list(), plain)
    # columns of another form are there too, and empty: datasets fill what a row has not
    mixed = Dataset.from_dict({"prompt": ["a\n"], "completion": ["c"], "chosen": [None], "rejected": [None]})
    assert set(encoded(mixed, plain)[0][0]) == {"prompt_ids", "completion_ids"}


def test_blank_texts_are_an_error_or_dropped_and_never_kept(plain: Any) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    blanks = [good | {"chosen": " \n"}, good | {"prompt": ""}, good | {"rejected": ""}]
    with pytest.raises(InputFault, match="row 'x': chosen is empty; mend or remove the row"):
        encoded([good, blanks[0] | {"id": "x"}], plain)
    found, counts = encoded([*blanks, good], plain, empty="drop")
    assert (len(found), counts) == (1, {"rows": 1, "dropped_empty": 3})


def test_a_ranking_without_its_blank_candidates_stays_if_two_are_left(plain: Any) -> None:
    rows = [{"prompt": "a", "candidates": ["b", "", "c"]}, {"prompt": "a", "candidates": ["b", " "]}]
    found, counts = encoded(rows, plain, empty="drop")
    assert [len(row["candidates_ids"]) for row in found] == [2]
    assert counts == {"rows": 1, "dropped_candidates": 2, "dropped_empty": 1}
    with pytest.raises(InputFault, match="row 0: a candidate is empty"):
        encoded(rows, plain)


def test_rows_of_two_forms_are_refused(plain: Any) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completion": "b"}]
    with pytest.raises(InputFault, match="row 1 is supervised, where paired rows are expected"):
        encoded(rows, plain)
    with pytest.raises(InputFault, match="row 0 is paired, where unpaired rows are expected"):
        encoded(rows, plain, form="unpaired")


def test_no_rows_left_says_where_they_went(plain: Any) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "b"}
    with pytest.raises(InputFault, match="none of 2 rows can be learned from: 0 rows; dropped 2 equal;"):
        encoded([row, row], plain)
    with pytest.raises(InputFault, match="there is no row to encode; the data set is empty"):
        encoded([], plain)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"chosen_score": "high"}, "row 0: chosen_score = 'high' is no number"),
        ({"win_probability": 1.5}, "row 0: win_probability = 1.5 is not between 0 and 1"),
        ({"prompt": [USER, YES, USER]}, "row 0: a conversation of 3 messages needs a chat template"),
    ],
)
def test_what_cannot_be_encoded_is_named_with_its_row(plain: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputFault, match=words):
        encoded([{"prompt": "a", "chosen": "b", "rejected": "c"} | more], plain)


def test_limits_and_cuts_reach_the_rows(plain: Any) -> None:
    row = {"prompt": "one two three one two three\n", "completion": "one two three", "label": True}
    (found,), counts = encoded(
        [row],
        plain,
        max_prompt_length=4,
        max_completion_length=2,
        over_long="truncate",
        truncation="keep_start",
    )
    assert found["prompt_ids"] == prompt_ids(plain, row["prompt"])[:4]
    assert found["completion_ids"] == completion_ids(plain, row["prompt"], row["completion"])[:2]
    assert plain.eos_token_id not in found["completion_ids"]
    assert (found["prompt_truncated"], found["completion_truncated"]) == (True, True)
    assert counts == {"rows": 1, "truncated_prompt": 1, "truncated_completion": 1}


def test_an_encoder_decoder_gets_the_tokenizers_own_tokens_also_where_a_prompt_is_cut() -> None:
    habit = tokenizer("$A </s>")
    row = {"prompt": "one two three", "completion": "two"}
    (found,), _ = encoded([row], habit, encoder_decoder=True, max_prompt_length=3, over_long="truncate")
    whole = habit("one two three")["input_ids"]
    assert len(whole) > 3
    assert found["prompt_ids"] == [*whole[-3:-1], habit.eos_token_id]
    assert found["completion_ids"] == habit("two")["input_ids"]


def test_prompts_inside_pairs_are_those_that_trl_finds() -> None:
    rows = [
        {"chosen": [USER, YES, USER, NO], "rejected": [USER, YES, USER, YES]},
        {"prompt": "one?", "chosen": [USER, YES], "rejected": [USER, NO]},
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "Q: why?\nA: yes", "rejected": "Q: why?\nA: no"},
    ]
    for row in rows:
        assert with_prompt(row) == maybe_extract_prompt(row)


def test_conversations_have_the_ids_that_trl_gives_them() -> None:
    habit = tokenizer(template=CHAT)
    row = {"prompt": [USER], "chosen": [YES], "rejected": [NO]}
    texts = apply_chat_template(row, habit)
    (found,), _ = encoded([row], habit)
    assert habit.decode(found["prompt_ids"]) == texts["prompt"]
    for side in ("chosen", "rejected"):
        # the template's line end behind EOS is no part of an answer
        assert habit.decode(found[f"{side}_ids"]) == texts[side].removesuffix("\n")
