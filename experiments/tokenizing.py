"""Tokenizers: a model's own, or trained on the task's text; the ids they give are ``po.data.tokenize``'s."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from po.data.tokenize import completion_ids, prompt_ids

__all__ = [
    "completion_ids",
    "ids_hash",
    "is_encoder_decoder",
    "load_saved",
    "make_tokenizer",
    "prompt_ids",
]

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


def is_encoder_decoder(model: Mapping[str, Any]) -> bool:
    """Whether the model of an entry reads prompts and writes answers with different parts."""
    if model["from_scratch"]:
        return False
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        model["id"], revision=model["revision"], trust_remote_code=model["trust_remote_code"]
    )
    return bool(config.is_encoder_decoder)


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


def ids_hash(ids: Sequence[int]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of token ids, by which generations are resumed."""
    return hashlib.sha256(json.dumps(list(ids), separators=(",", ":")).encode()).hexdigest()[:16]


def load_saved(folder: Path) -> Any:
    """The tokenizer that ``prepare`` saved."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
