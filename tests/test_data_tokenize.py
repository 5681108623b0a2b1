"""Token ids of prompts and completions: BOS once, EOS once, the prompt a prefix, no text changed."""

from typing import Any

import pytest
from tiny_tokenizers import CHAT, tokenizer

from po.data.tokenize import completion_ids, prompt_ids, target_ids
from po.faults import InputFault

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three?"},
]
ANSWER = [{"role": "assistant", "content": "the sea"}]


@pytest.mark.parametrize("form", ["<s> $A", "$A", "<s> $A </s>", "$A </s>"])
def test_bos_stands_once_where_the_tokenizer_adds_one_and_eos_once_at_the_end(form: str) -> None:
    habit = tokenizer(form)
    start, answer = prompt_ids(habit, "The sky is:\n"), completion_ids(habit, "The sky is:\n", "blue")
    whole = start + answer
    assert whole.count(habit.bos_token_id) == ("<s>" in form)
    assert whole.index(habit.eos_token_id) == len(whole) - 1
    assert habit.decode(whole, skip_special_tokens=True) == "The sky is:\nblue"


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [
        ("The sky is:\n", "blue", "The sky is:\nblue"),
        ("The sky is", "blue", "The sky is blue"),  # a blank where neither brings one
        ("The sky is", " blue", "The sky is blue"),
        ("The sky is ", "blue", "The sky is blue"),
        ("one two", "\nthree", "one two\nthree"),
    ],
)
def test_decoding_gives_the_text_back(prompt: str, completion: str, text: str, metaspace: bool) -> None:
    habit = tokenizer(metaspace=metaspace)
    ids = prompt_ids(habit, prompt) + completion_ids(habit, prompt, completion)
    assert habit.decode(ids, skip_special_tokens=True) == text


def test_a_completion_is_what_stands_behind_the_prompt_and_not_what_the_tokenizer_gives_alone() -> None:
    habit = tokenizer(metaspace=True)
    alone = habit("blue", add_special_tokens=False)["input_ids"]
    assert habit.convert_ids_to_tokens(alone)[0].startswith("▁")
    behind = completion_ids(habit, "The sky is:\n", "blue")
    assert not any("▁" in token for token in habit.convert_ids_to_tokens(behind))


def test_a_completion_that_would_merge_with_the_prompt_is_tokenized_by_itself() -> None:
    habit = tokenizer(metaspace=True)
    start, whole = prompt_ids(habit, "The sky is "), habit("The sky is blue")["input_ids"]
    assert whole[: len(start)] != start  # the last blank of the prompt has become part of "▁blue"
    found = completion_ids(habit, "The sky is ", "blue")
    assert habit.decode(start + found, skip_special_tokens=True) == "The sky is blue"


def test_ids_that_are_known_need_not_be_made_again() -> None:
    habit = tokenizer(template=CHAT)
    start = prompt_ids(habit, TURNS)
    assert completion_ids(habit, TURNS, ANSWER, start=start) == completion_ids(habit, TURNS, ANSWER)


def test_several_turns_are_rendered_and_only_the_last_answer_is_the_completion() -> None:
    habit = tokenizer(template=CHAT)
    start, answer = prompt_ids(habit, TURNS), completion_ids(habit, TURNS, ANSWER)
    assert habit.decode(start) == (
        "<s>[system]Be brief.[user]one?[assistant]two</s>\n[user]three?[assistant]"
    )
    assert habit.decode(answer) == "the sea</s>"
    whole = habit.apply_chat_template([*TURNS, *ANSWER], tokenize=True, return_dict=False)
    assert whole[: len(start) + len(answer)] == start + answer
    assert completion_ids(habit, TURNS, "the sea") == answer


def test_a_text_is_one_turn_of_a_user() -> None:
    habit = tokenizer(template=CHAT)
    assert prompt_ids(habit, "one?") == prompt_ids(habit, [{"role": "user", "content": "one?"}])


def test_a_second_bos_of_the_template_is_left_out() -> None:
    habit = tokenizer(template="{{ bos_token }}" + CHAT)
    assert prompt_ids(habit, "one?") == prompt_ids(tokenizer(template=CHAT), "one?")
    assert habit.decode(completion_ids(habit, "one?", "two")) == "two</s>"


def test_a_template_that_closes_an_answer_twice_gives_one_eos() -> None:
    habit = tokenizer(template=CHAT.replace("{{ eos_token }}", "{{ eos_token }}{{ eos_token }}"))
    assert habit.decode(completion_ids(habit, "one?", "two")) == "two</s>"


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    shorter = CHAT.replace("{{ turn.content }}", "{{ turn.content if loop.last else turn.content[:1] }}")
    with pytest.raises(InputFault, match="renders a prompt differently once it is answered"):
        completion_ids(tokenizer(template=shorter), TURNS, ANSWER)


def test_an_answer_that_holds_the_text_of_eos_is_refused_where_a_template_would_read_it() -> None:
    with pytest.raises(InputFault, match="the answer holds '</s>'"):
        completion_ids(tokenizer(template=CHAT), "one?", "two </s> three")
    plain = tokenizer()
    assert completion_ids(plain, "one?\n", "two </s> three").count(plain.eos_token_id) == 1


def test_a_prompt_that_ends_with_an_answer_is_refused() -> None:
    with pytest.raises(InputFault, match="the prompt ends with an answer"):
        prompt_ids(tokenizer(template=CHAT), [*TURNS, *ANSWER])


def test_a_conversation_needs_a_template_but_one_turn_is_a_text() -> None:
    plain = tokenizer()
    with pytest.raises(InputFault, match="a conversation of 4 messages needs a chat template"):
        prompt_ids(plain, TURNS)
    assert prompt_ids(plain, TURNS[1:2]) == prompt_ids(plain, "one?")


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_a_tokenizer_without_eos_is_refused(encoder_decoder: bool) -> None:
    with pytest.raises(InputFault, match="no end-of-sequence token"):
        completion_ids(tokenizer(eos_token=None), "a", "b", encoder_decoder=encoder_decoder)


@pytest.mark.parametrize(
    ("form", "target"),
    [("$A </s>", "b</s>"), ("<s> $A </s>", "<s>b</s>"), ("$A", "b</s>"), ("$A </s> </s>", "b</s>")],
)
def test_an_encoder_keeps_the_tokenizers_own_tokens_and_its_targets_end_once(form: str, target: str) -> None:
    habit: Any = tokenizer(form)
    prompt = prompt_ids(habit, "a", encoder_decoder=True)
    assert prompt == habit("a")["input_ids"]
    found = completion_ids(habit, "a", "b", encoder_decoder=True)
    assert found == target_ids(habit, "b")
    assert habit.decode(found) == target  # and no blank in front: the decoder sees no prompt
