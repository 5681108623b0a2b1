"""Training of adapters: as a cell of a model that lies in a folder, and by the trainer itself."""

import json

from tiny_training import MODEL, TRAINING, make_experiment, random_pairs, tiny_llama
from transformers import TrainingArguments

from po import train
from po.methods import METHODS, resolve
from po.training.collate import Collator
from po.training.trainer import MethodTrainer

ADAPTER = {
    "r": 4,
    "alpha": 8.0,
    "dropout": 0.0,
    "target_modules": "all-linear",
    "modules_to_save": [],
    "rslora": False,
    "dora": False,
    "init": "kaiming",
    "reference": "off",
}
DATA = "data/tiny.toy--0"


def experiment(root, **shape):
    """Prepared rows, and the model in the folder ``base``; returns the experiment's folder."""
    make_experiment(root)
    tiny_llama(**shape).save_pretrained(root / "base")
    return root


def adapter_cell(root, name, method="dpo", parent=None, adapter=None, quantization=None, **training):
    """A cell; ``parent`` is another's folder, and a reference's folder is made where values are stored."""
    entry = resolve(method)
    model = MODEL | {"id": str(root / "base"), "from_scratch": None}
    model |= {"adapter": ADAPTER | (adapter or {}), "quantization": quantization}
    params = {"beta": 0.5, "sync_steps": 2, "sync_mix": 0.5}
    params = entry.check_params({key: value for key, value in params.items() if key in entry.rules})
    rows = f"{DATA}/{'sft' if entry is METHODS['sft'] else 'train'}.jsonl"
    above = f"cells/{parent.name}" if parent else None
    stored = entry.stored_reference(params)
    if stored:
        folder = root / "reference" / name
        folder.mkdir(parents=True)
        unit = {"model": model, "parent": above, "data": rows, "precision": "fp32", "kinds": list(stored)}
        (folder / "unit.json").write_text(json.dumps(unit))
    cell = {
        "name": name,
        "seed": 1,
        "model": model,
        "train": {"method": method, "params": params, "data": rows, "training": TRAINING | training},
        "corpus": DATA,
        "parent": above,
        "reference": f"reference/{name}" if stored else None,
        "hashes": {"train": f"hash of {name}"},
    }
    folder = root / "cells" / name
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps(cell))
    return folder


def trained(folder):
    """The cell after its training."""
    assert train.main([str(folder)]) == 0
    return folder


def trained_policy(tmp_path, policy, reference, method="dpo", params=None, rows=None, **arguments):
    """The trainer after training this very policy, whose start the reference is to be."""
    method = resolve(method)
    params = method.check_params(params or {})
    arguments = {"max_steps": 1, "learning_rate": 1e-3, "logging_steps": 1, **arguments}
    trainer = MethodTrainer(
        model=policy,
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
        train_dataset=rows or random_pairs(8),
        data_collator=Collator.of(method, params, policy.config.is_encoder_decoder),
        method=method,
        params=params,
        reference=reference,
        same_start=True,
    )
    trainer.train()
    return trainer
