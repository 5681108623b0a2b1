"""Tokenizers built in memory, one of each habit: with and without BOS, closing texts, a leading blank."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = ["The sky is blue and the sea is deep.", "Der Himmel ist blau, das Meer ist tief.", "one two three"]
SPECIAL = ["<pad>", "<s>", "</s>"]
CHAT = (
    "{{ bos_token }}{% for turn in messages %}[{{ turn.role }}]{{ turn.content }}"
    "{% if turn.role == 'assistant' %}{{ eos_token }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer(
    form: str = "<s> $A", *, metaspace: bool = False, template: str | None = None, **tokens: Any
) -> Any:
    """A tokenizer that knows every byte (or, with ``metaspace``, puts a blank in front, as Llama's does).

    Args:
        form: what special tokens it adds to a text.
        metaspace: SentencePiece's habit.
        template: the chat template.
        tokens: other names of special tokens.
    """
    made = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None))
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    alphabet = (
        list("abcdefghijklmnopqrstuvwxyzTDHM .,:\n▁") if metaspace else pre_tokenizers.ByteLevel.alphabet()
    )
    special = [*SPECIAL, "<unk>"] if metaspace else SPECIAL
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    ids = [(name, made.token_to_id(name)) for name in SPECIAL]
    made.post_processor = processors.TemplateProcessing(single=form, special_tokens=ids)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | tokens
    found = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    found.chat_template = template
    return found
