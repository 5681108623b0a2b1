"""Forms of rows: told by their columns, brought under one set of names, refused with what to do."""

from typing import Any

import pytest

from po.data.forms import content, desirable, form_of, text_row, with_prompt
from po.faults import InputFault

USER, ANSWER = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}
OTHER = {"role": "assistant", "content": "No."}
SYSTEM = {"role": "system", "content": "Be brief."}


def refused(row: dict[str, Any], form: str | None = None) -> str:
    with pytest.raises(InputFault) as raised:
        text_row(row, form, "row 7") if form else form_of(row, "row 7")
    return str(raised.value)


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "paired"),
        ({"chosen": "ab", "rejected": "ac"}, "paired"),
        ({"prompt": "a", "completion": "b", "label": False}, "unpaired"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1, 2]}, "ranked"),
        ({"prompt": "a", "candidates": ["b", "c"]}, "ranked"),
        ({"prompt": "a", "completion": "b"}, "supervised"),
        ({"prompt": "a", "completion": "b", "label": None}, "supervised"),
        ({"messages": [USER, ANSWER]}, "supervised"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "completion": "d", "images": []}, "paired"),
    ],
)
def test_the_columns_tell_the_form(row: dict[str, Any], form: str) -> None:
    assert form_of(row) == form


def test_columns_of_no_form_are_named_with_the_forms_and_the_nearest_name() -> None:
    found = refused({"prompt": "a", "choosen": "b", "rejected": "c"})
    assert found.startswith(
        "row 7 has the columns choosen, prompt, rejected; did you mean 'chosen'? A row is one"
    )
    assert "paired (prompt, chosen, rejected); unpaired (prompt, completion, label); ranked" in found
    assert "has the columns none" in refused({"chosen": None})


def test_explicit_prompts_stay_as_they_are() -> None:
    row = {"prompt": "a b", "chosen": "a b c", "rejected": " d"}
    assert text_row(row, "paired") == row
    chat = {"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [OTHER]}
    assert text_row(chat, "paired") == chat


def test_conversations_share_their_leading_messages_as_the_prompt() -> None:
    before = [SYSTEM, USER, ANSWER, USER]
    row = {"chosen": [*before, ANSWER], "rejected": [*before, OTHER]}
    assert text_row(row, "paired") == {"prompt": before, "chosen": [ANSWER], "rejected": [OTHER]}
    # a prompt beside whole conversations repeats what they hold, as text or as messages
    for prompt in ("Hi?", before):
        assert text_row(row | {"prompt": prompt}, "paired")["prompt"] == before
    # and is all there is where they hold answers only
    answers = {"prompt": "Hi?", "chosen": [ANSWER], "rejected": [OTHER]}
    assert text_row(answers, "paired") == answers | {"prompt": [USER]}


def test_turns_that_both_sides_share_behind_the_prompt_belong_to_it() -> None:
    row = {"prompt": [USER], "chosen": [ANSWER, USER, ANSWER], "rejected": [ANSWER, USER, OTHER]}
    assert text_row(row, "paired") == {
        "prompt": [USER, ANSWER, USER],
        "chosen": [ANSWER],
        "rejected": [OTHER],
    }


def test_equal_conversations_keep_their_last_answer() -> None:
    row = with_prompt({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]})
    assert row == {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "rests"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", (" blue.", " green.")),
        ("The sky is black", "The sky is blue", "The sky is", (" black", " blue")),  # TRL would cut at "bl"
        ("Q: why?\nA: yes", "Q: why?\nA: no", "Q: why?\nA:", (" yes", " no")),
        ("Q: why?\nyes", "Q: why?\nno", "Q: why?\n", ("yes", "no")),
        ("say it:yes", "say it:no", "say it:", ("yes", "no")),
        ("I'm in", "I've been", None, ()),
        ("a b c", "a b", "a", (" b c", " b")),  # neither side is left empty
        ("same words", "same words", "same", (" words", " words")),
        ("yes", "no", None, ()),
    ],
)
def test_plain_texts_share_a_beginning_that_cuts_no_word(
    chosen: str, rejected: str, prompt: str | None, rests: tuple[str, ...]
) -> None:
    row = {"chosen": chosen, "rejected": rejected}
    if prompt is None:
        assert "row 7: there is no prompt, and chosen and rejected share no beginning" in refused(
            row, "paired"
        )
        return
    found = with_prompt(row)
    assert (found["prompt"], found["chosen"], found["rejected"]) == (prompt, *rests)
    assert [found["prompt"] + rest for rest in rests] == [chosen, rejected]


def test_a_ranking_is_sorted_best_first_and_keeps_ties_in_order() -> None:
    row = {"prompt": "a", "completions": ["low", "high", "tie"], "scores": [1, 3.5, 1]}
    found = text_row(row, "ranked")
    assert found == {
        "prompt": "a",
        "candidates": ["high", "low", "tie"],
        "candidates_scores": [3.5, 1.0, 1.0],
    }
    assert text_row({"prompt": "a", "candidates": ["x", "y"]}, "ranked")["candidates"] == ["x", "y"]
    as_sampled = [{"text": "x", "score": 1}, {"text": "y", "score": 2}]
    assert text_row({"prompt": "a", "candidates": as_sampled}, "ranked")["candidates"] == ["y", "x"]


@pytest.mark.parametrize(
    ("label", "truth"),
    [(True, True), (False, False), (1, True), (0.0, False), ("True", True), (" false ", False), ("1", True)],
)
def test_labels_are_truth_values_also_as_files_write_them(label: Any, truth: bool) -> None:
    assert desirable(label) is truth
    row = {"prompt": "a", "completion": "b", "label": label}
    assert text_row(row, "unpaired") == {"prompt": "a", "completion": "b", "desirable": truth}


def test_the_last_message_of_a_conversation_is_the_completion() -> None:
    found = text_row({"messages": [SYSTEM, USER, ANSWER, USER, OTHER]}, "supervised")
    assert found == {"prompt": [SYSTEM, USER, ANSWER, USER], "completion": [OTHER]}


@pytest.mark.parametrize(
    ("form", "row", "words"),
    [
        ("unpaired", {"prompt": "a", "completion": "b", "label": "maybe"}, "label is 'maybe'; it is true"),
        ("paired", {"prompt": 3, "chosen": "b", "rejected": "c"}, "prompt is a int, not a text"),
        ("supervised", {"completion": "b"}, "prompt is missing"),
        (
            "supervised",
            {"prompt": [], "completion": "b"},
            "prompt is a list, not a text or a list of messages",
        ),
        (
            "supervised",
            {"prompt": "a", "completion": "half \ud83d"},
            "completion holds half of a surrogate pair",
        ),
        ("supervised", {"prompt": "a", "completion": [USER]}, "the completion's role is 'user'"),
        ("supervised", {"prompt": "a", "completion": [{"role": "assistant"}]}, "a message without content"),
        ("supervised", {"messages": [USER]}, "messages is a list of at least two messages"),
        ("ranked", {"prompt": "a", "completions": ["b"], "scores": [1]}, "at least two completions"),
        ("ranked", {"prompt": "a", "completions": ["b", "c"], "scores": [1]}, "2 completions need as many"),
        (
            "ranked",
            {"prompt": "a", "completions": ["b", "c"], "scores": [1, None]},
            "score None is no number",
        ),
        ("ranked", {"prompt": "a", "completions": ["b", 4]}, "a completion is a int, not a text"),
        (
            "paired",
            {"prompt": "a", "chosen": [ANSWER], "rejected": "c"},
            "one of chosen and rejected is a conv",
        ),
        ("paired", {"chosen": [USER, ANSWER], "rejected": [ANSWER, ANSWER]}, "share no message; give their"),
        (
            "paired",
            {"prompt": "a", "chosen": [ANSWER, USER, ANSWER], "rejected": [OTHER, USER, ANSWER]},
            "a completion of 3 messages; only the last answer is scored",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_place(form: str, row: dict[str, Any], words: str) -> None:
    found = refused(row, form)
    assert found.startswith("row 7: ")
    assert words in found


def test_the_content_of_a_message_in_parts_is_its_text() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]
    assert content([{"role": "user", "content": parts}]) == "What is this?"
    assert content("as it is") == "as it is"
