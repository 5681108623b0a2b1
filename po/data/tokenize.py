"""Texts and conversations -> token ids: BOS once, EOS once, the prompt a prefix of the whole.

What a model is given and what it learns from must be the same ids: a completion is what stands behind the
ids of its prompt, never a part of a text that was tokenized in another way.
"""

from typing import Any

from po.data.forms import Message, Text, content
from po.faults import InputFault


def prompt_ids(tokenizer: Any, prompt: Text, *, encoder_decoder: bool = False) -> list[int]:
    """Ids that a model is given.

    The chat template's, if the tokenizer has one; else BOS (where the tokenizer adds one) and the text, in
    which the names of special tokens are plain text. The encoder of an encoder-decoder model gets the
    tokenizer's own closing tokens too.

    Args:
        tokenizer: of transformers.
        prompt: a text (one turn of a user), or a conversation that ends with a turn to be answered.
        encoder_decoder: whether the model is one.

    Raises:
        InputFault: a conversation ends with an answer, or has several turns and there is no chat template.
    """
    if tokenizer.chat_template:
        if _messages(prompt)[-1]["role"] == "assistant":
            raise InputFault("the prompt ends with an answer; an answer follows the turn of a user")
        return _rendered(tokenizer, _messages(prompt), add_generation_prompt=True)
    ids = list(tokenizer(_plain(prompt), split_special_tokens=True)["input_ids"])
    return ids if encoder_decoder else _open(ids, tokenizer)


def completion_ids(
    tokenizer: Any,
    prompt: Text,
    completion: Text,
    *,
    start: list[int] | None = None,
    encoder_decoder: bool = False,
) -> list[int]:
    """Ids of an answer to a prompt, the end-of-sequence token last.

    Without a chat template a blank is put between prompt and answer where neither brings one.

    Args:
        tokenizer: of transformers.
        prompt: what is answered.
        completion: the answer: a text, or one message of an assistant.
        start: the prompt's ids, where they are known; a chat template has to begin the whole with them.
        encoder_decoder: whether the model is one; its decoder sees the answer alone.

    Raises:
        InputFault: with the answer in it, the chat template renders the prompt in another way; or there is
            no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise InputFault("the tokenizer has no end-of-sequence token, so no answer would ever end; set one")
    if encoder_decoder:
        return target_ids(tokenizer, completion)
    if tokenizer.chat_template:
        start = prompt_ids(tokenizer, prompt) if start is None else start
        return _chat_completion(tokenizer, prompt, completion, start)
    text = content(completion)
    if not _plain(prompt)[-1:].isspace() and not text[:1].isspace():
        text = f" {text}"
    return [*_behind_a_line_end(tokenizer, text), tokenizer.eos_token_id]


def target_ids(tokenizer: Any, completion: Text) -> list[int]:
    """Labels of an encoder-decoder model: the tokenizer's own form of a target text, closed by one EOS.

    Raises:
        InputFault: there is no end-of-sequence token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise InputFault("the tokenizer has no end-of-sequence token, so no answer would ever end; set one")
    ids = list(tokenizer(text_target=content(completion), split_special_tokens=True)["input_ids"])
    while ids[-2:] == [end, end]:
        ids.pop()
    return ids if end in ids[-2:] else [*ids, end]  # old mBART tokenizers put the language behind it


def _behind_a_line_end(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is not the first: some tokenizers put a blank in front of what they are given."""
    texts = ["\n", f"\n{text}", text]
    mark, marked, alone = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(marked[len(mark) :] if marked[: len(mark)] == mark else alone)


def _chat_completion(tokenizer: Any, prompt: Text, completion: Text, start: list[int]) -> list[int]:
    answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else [*completion]
    if tokenizer.eos_token in content(completion):
        raise InputFault(
            f"the answer holds '{tokenizer.eos_token}', with which the model ends an answer; take it out"
        )
    whole = _rendered(tokenizer, [*_messages(prompt), *answer])
    if whole[: len(start)] != start:
        raise InputFault(
            "the chat template renders a prompt differently once it is answered; "
            "give a template whose generation prompt is a prefix of the whole"
        )
    ids, end = whole[len(start) :], tokenizer.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else [*ids, end]


def _rendered(tokenizer: Any, messages: list[Message], **how: Any) -> list[int]:
    ids = list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **how))
    # a template that writes BOS for a tokenizer that adds it
    while tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids.pop(0)
    return ids


def _messages(prompt: Text) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _plain(prompt: Text) -> str:
    """A prompt's text for a tokenizer without a chat template."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) > 1:
        raise InputFault(
            f"a conversation of {len(prompt)} messages needs a chat template, and the tokenizer has none"
        )
    return content(prompt)


def _open(ids: list[int], tokenizer: Any) -> list[int]:
    """Ids without a closing EOS, which some tokenizers put behind every text."""
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids
