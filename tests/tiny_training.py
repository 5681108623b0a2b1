"""What training tests need: tiny models, pairs of random tokens, an experiment's folder."""

import copy
import json
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from po.methods import METHODS, resolve
from po.references.sources import StoredReference
from po.training.collate import Collator
from po.training.trainer import MethodTrainer

VOCABULARY = 60
EOS = 2
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 32,
}
MODEL = {
    "id": None,
    "revision": None,
    "from_scratch": {
        "architecture": "llama",
        "hidden_size": 64,
        "layers": 2,
        "heads": 2,
        "kv_heads": None,
        "intermediate_size": 96,
        "max_positions": 64,
        "tie_embeddings": True,
        "tokenizer": {"kind": "bpe", "vocab_size": VOCABULARY},
    },
    "dtype": "float32",
    "attention": "sdpa",
    "chat_template": None,
    "trust_remote_code": False,
}
TRAINING = {
    "epochs": 2.0,
    "max_steps": None,
    "global_batch_size": 8,
    "per_device_batch_size": 4,
    "learning_rate": 1e-3,
    "scheduler": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "precision": "fp32",
    "disable_dropout": True,
    "gradient_checkpointing": False,
    "logging_steps": 2,
    "save_steps": 2,
    "retain": "final",
    "router_aux_loss_coef": 0.001,
    "speed": {"sharing": "auto", "head": "fused", "token_budget": None, "compile": False, "liger": False},
}


def tiny_llama(seed=0, **changes):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, **SHAPE | changes)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # sharper than fresh weights, so that a wrong position cannot go unseen
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else None
    return model


def random_ids(generator, low, high):
    return [generator.randrange(3, VOCABULARY) for _ in range(generator.randint(low, high))]


def random_pairs(n, seed=0):
    """Rows whose prompts and completions differ in length; completions end with EOS."""
    generator = random.Random(seed)
    return [
        {
            "prompt_ids": random_ids(generator, 1, 6),
            "chosen_ids": [*random_ids(generator, 1, 9), EOS],
            "rejected_ids": [*random_ids(generator, 1, 9), EOS],
        }
        for _ in range(n)
    ]


def preference_trainer(
    tmp_path,
    model,
    rows,
    method,
    params=None,
    eval_rows=None,
    callbacks=None,
    reference=None,
    images=None,
    router_aux_loss_coef=0.0,
    speed=None,
    **arguments,
):
    method = resolve(method) if isinstance(method, str) else method
    params = method.check_params(params or {})
    arguments = {"max_steps": 1, "learning_rate": 1e-3, "logging_steps": 1, **arguments}
    return MethodTrainer(
        model=copy.deepcopy(model),
        args=TrainingArguments(
            output_dir=str(tmp_path / "out"),
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **arguments,
        ),
        train_dataset=rows,
        eval_dataset=eval_rows,
        data_collator=Collator.of(method, params, model.config.is_encoder_decoder, images),
        callbacks=callbacks,
        method=method,
        params=params,
        reference=reference or StoredReference(),
        router_aux_loss_coef=router_aux_loss_coef,
        speed=speed,
    )


def make_experiment(root, n_rows=20):
    """data/ with a tokenizer and rows, and a cell that trains sft from scratch; returns the cell's folder."""
    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, VOCABULARY))]
    ids = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    data = root / "data" / "tiny.toy--0"
    tokenizer.save_pretrained(data / "tokenizer")
    pairs = random_pairs(n_rows)
    write_rows(data / "train.jsonl", pairs)
    write_rows(data / "sft.jsonl", [row | {"completion_ids": row["chosen_ids"]} for row in pairs])
    train = {"method": "sft", "params": METHODS["sft"].check_params({}), "data": "data/tiny.toy--0/sft.jsonl"}
    return make_cell(root, "tiny.toy.sft.s1--0", train)


def add_dpo(root, parent):
    """A reference folder and a dpo cell below a trained sft cell; returns the cell's folder."""
    reference = root / "reference" / "sft--0"
    reference.mkdir(parents=True)
    data = "data/tiny.toy--0/train.jsonl"
    unit = {"schema": 1, "model": MODEL, "parent": f"cells/{parent.name}", "data": data, "precision": "fp32"}
    (reference / "unit.json").write_text(json.dumps(unit))
    train = {"method": "dpo", "params": METHODS["dpo"].check_params({"beta": 0.5}), "data": data}
    parent = f"cells/{parent.name}"
    return make_cell(root, "tiny.toy.dpo.s1--0", train, parent=parent, reference="reference/sft--0")


def make_cell(root, name, train, parent=None, reference=None, **training):
    folder = root / "cells" / name
    folder.mkdir(parents=True)
    cell = {
        "schema": 1,
        "name": name,
        "seed": 1,
        "model": MODEL,
        "train": train and {**train, "training": TRAINING | training},
        "corpus": "data/tiny.toy--0",
        "parent": parent,
        "reference": reference,
        "hashes": {"train": f"hash of {name}"},
    }
    (folder / "cell.json").write_text(json.dumps(cell))
    return folder


def change_training(folder, **training):
    cell = json.loads((folder / "cell.json").read_text())
    cell["train"]["training"] |= training
    (folder / "cell.json").write_text(json.dumps(cell))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
