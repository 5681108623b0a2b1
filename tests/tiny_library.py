"""What tests of the library need: texts, a tokenizer and a model that fit together, quick settings."""

import random

from tiny_training import VOCABULARY, tiny_llama
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from po import PreferenceConfig, PreferenceTrainer

QUICK = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
CHAT = (
    "{% for turn in messages %}{{ turn.role }} : {{ turn.content }} "
    "{% if turn.role == 'assistant' %}{{ eos_token }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
WORDS = ["<pad>", "<bos>", "<eos>", "user", "assistant", ":", *(f"w{i}" for i in range(6, VOCABULARY))]


def word_tokenizer(chat_template=None, bos=False):
    """One token a word; ids are those of `WORDS`."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    found = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    found.chat_template = chat_template
    return found


def text(generator, low, high):
    return " ".join(f"w{generator.randrange(6, VOCABULARY)}" for _ in range(generator.randint(low, high)))


def text_pairs(n=8, seed=0):
    generator = random.Random(seed)
    return [
        {"prompt": text(generator, 2, 6), "chosen": text(generator, 1, 8), "rejected": text(generator, 1, 8)}
        for _ in range(n)
    ]


def library_trainer(tmp_path, rows, method="dpo", *, model=None, ref_model=None, eval_rows=None, **settings):
    """A `PreferenceTrainer` on a tiny Llama; what it takes itself goes by, the rest are settings."""
    own = ("processing_class", "peft_config", "callbacks", "compute_metrics", "quantization_config")
    given = {name: settings.pop(name) for name in own if name in settings}
    return PreferenceTrainer(
        tiny_llama() if model is None else model,
        ref_model,
        PreferenceConfig(str(tmp_path / "out"), method=method, **{**QUICK, **settings}),
        train_dataset=rows,
        eval_dataset=eval_rows,
        **given,
    )


def train_logs(trainer):
    trainer.train()
    return [logs for logs in trainer.state.log_history if "loss" in logs]
