"""Tokenizers (a model's own, or trained on the task's text) and the ids of prompts and completions."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def make_tokenizer(model: Mapping[str, Any], texts: Iterable[str], chat_template: str | None) -> Any:
    """The tokenizer of a model entry: loaded, or trained on ``texts`` for a model from scratch."""
    if model["from_scratch"]:
        tokenizer = _train_bpe(texts, model["from_scratch"]["tokenizer"]["vocab_size"])
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            model["id"], revision=model["revision"], trust_remote_code=model["trust_remote_code"]
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def _train_bpe(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer: any text round-trips, and no character is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Ids that a model is given.

    The chat template's, if the tokenizer has one; else BOS (where the tokenizer adds one) and the text, in
    which the names of special tokens are plain text.
    """
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        return list(
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=False)
        )
    ids = list(tokenizer(prompt, split_special_tokens=True)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids.pop()  # some tokenizers close every text; a prompt is not closed
    return ids


def completion_ids(tokenizer: Any, prompt: str, completion: str) -> list[int]:
    """Ids of an answer to a prompt, the end-of-sequence token last.

    Raises:
        ValueError: with the answer in it, the chat template renders the prompt in another way.
    """
    if tokenizer.chat_template:
        start = prompt_ids(tokenizer, prompt)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        whole = list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))
        if whole[: len(start)] != start:
            raise ValueError(
                "the chat template renders a prompt differently once it is answered; "
                "give a template whose generation prompt is a prefix of the whole"
            )
        ids = whole[len(start) :]
        if tokenizer.eos_token_id in ids:
            return ids[: len(ids) - ids[::-1].index(tokenizer.eos_token_id)]
        return [*ids, tokenizer.eos_token_id]
    text = completion if prompt[-1:].isspace() else f" {completion}"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def ids_hash(ids: Sequence[int]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of token ids, by which generations are resumed."""
    return hashlib.sha256(json.dumps(list(ids), separators=(",", ":")).encode()).hexdigest()[:16]


def load_saved(folder: Path) -> Any:
    """The tokenizer that ``prepare`` saved."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
