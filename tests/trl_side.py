"""One training step of TRL's trainers on the tiny pairs, and the same step of ours.

Both start from one policy and one reference, see all pairs in one batch and do not clip. The policy has left
the reference, so that no gradient is zero by symmetry.
"""

import functools
import inspect
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from test_trainer_invariants import Gradients, assert_same_gradients, moved
from tiny_training import make_experiment, random_pairs, tiny_llama
from torch import Tensor
from transformers import AutoTokenizer, TrainingArguments

from po.methods import resolve
from po.references.cell import live_reference
from po.training.collate import Collator
from po.training.trainer import MethodTrainer

trl = pytest.importorskip("trl")

N_PAIRS = 8
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins")


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of a trainer.

    Attributes:
        loss: mean over the steps, not rounded.
        log: of the last step.
        gradients: of each step, by parameter.
        trainer: after its steps.
    """

    loss: float
    log: dict[str, float]
    gradients: list[dict[str, Tensor]]
    trainer: object


@functools.cache
def tokenizer():
    """A word is a token."""
    with tempfile.TemporaryDirectory() as folder:
        make_experiment(Path(folder))
        return AutoTokenizer.from_pretrained(Path(folder) / "data" / "tiny.toy--0" / "tokenizer")


def start():
    """The reference; its layers count in double, so that rounding is no part of a difference."""
    return tiny_llama().double()


def policy():
    """Near the reference, so that ratios do not blow rounding up; KTO's distance between them is above 0."""
    reference = start()
    model = moved(reference, seed=11)
    with torch.no_grad():
        for parameter, origin in zip(model.parameters(), reference.parameters(), strict=True):
            parameter.lerp_(origin, 0.5)
    return model


def text(ids):
    return " ".join(f"w{i}" for i in ids)


def pairs():
    """Pairs as TRL takes them: texts whose last token, EOS, TRL adds itself."""
    return Dataset.from_list(
        [
            {
                "prompt": text(row["prompt_ids"]) + " ",
                "chosen": text(row["chosen_ids"][:-1]),
                "rejected": text(row["rejected_ids"][:-1]),
            }
            for row in random_pairs(N_PAIRS)
        ]
    )


def labelled_completions():
    """Five desirable completions and three others, of as many prompts."""
    rows = [(row, side) for row, side in zip(random_pairs(N_PAIRS), "crrcccrc", strict=True)]
    return Dataset.from_list(
        [
            {
                "prompt": text(row["prompt_ids"]) + " ",
                "completion": text(row["chosen_ids" if side == "c" else "rejected_ids"][:-1]),
                "label": side == "c",
            }
            for row, side in rows
        ]
    )


def settings(folder, changes):
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": N_PAIRS,
        "learning_rate": 0.05,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }


def their_trainer(trainer, config, folder, data=None, parts=None, changes=None, **options):
    """A trainer of TRL, with the reference where it takes one.

    ``parts`` is what else it takes, ``changes`` are other settings of the training, ``options`` those of TRL.
    """
    arguments = settings(folder, {"bf16": False, "gradient_checkpointing": False, **(changes or {})})
    takes_reference = "ref_model" in inspect.signature(trainer.__init__).parameters
    return trainer(
        model=policy(),
        args=config(**arguments, **options),
        train_dataset=pairs() if data is None else data,
        processing_class=tokenizer(),
        **({"ref_model": start()} if takes_reference else {}),
        **(parts or {}),
    )


def their_dpo(folder, **options):
    return steps_of(their_trainer(trl.DPOTrainer, trl.DPOConfig, folder, **options))


def our_steps(folder, method, params, rows=None, changes=None):
    """Steps of the trainer of this project; the reference is asked in every step."""
    method, rows = resolve(method), random_pairs(N_PAIRS) if rows is None else rows
    params, model = method.check_params(params), policy()
    arguments = settings(folder, changes or {})
    trainer = MethodTrainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=rows,
        data_collator=Collator.of(method, params),
        method=method,
        params=params,
        reference=live_reference(method, model, start()) if method.needs_reference else None,
    )
    return steps_of(trainer)


def steps_of(trainer):
    gradients = Gradients()
    trainer.add_callback(gradients)
    loss = trainer.train().training_loss
    logs = [row for row in trainer.state.log_history if "loss" in row]
    return Steps(loss, logs[-1], gradients.steps, trainer)


def assert_same_steps(ours, theirs, names=REWARDS, scale=1.0):
    """Loss, gradients and logged values agree to 1e-5; scale: what ours is to be multiplied by."""
    assert scale * ours.loss == pytest.approx(theirs.loss, rel=1e-5, abs=1e-5)
    assert len(ours.gradients) == len(theirs.gradients)
    for found, expected in zip(ours.gradients, theirs.gradients, strict=True):
        assert sum(gradient.norm() for gradient in expected.values()) > 1e-3
        assert_same_gradients({name: scale * g for name, g in found.items()}, expected, relative=1e-5)
    for name in names:
        assert ours.log[name] == pytest.approx(theirs.log[name], rel=1e-5, abs=1e-5), name


def rows_of(theirs):
    """The token ids that the trainer of CPO or ORPO saw; both put BOS first."""
    return [labelled(row) for row in theirs.trainer.train_dataset]


def labelled(row):
    """Its labels are -100 on the prompt."""
    chosen, rejected = ([t for t in row[f"{side}_labels"] if t != -100] for side in ("chosen", "rejected"))
    prompt = row["chosen_input_ids"][: len(row["chosen_input_ids"]) - len(chosen)]
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def loss_types(*classes):
    """The loss types that the sources of a trainer and its configuration tell apart, but refuse none."""
    pattern = r'loss_type == "(\w+)":\n(?!\s*raise)'
    return {name for each in classes for name in re.findall(pattern, inspect.getsource(each))}


def unless_gone(loss_type, *classes):
    """Skips the test of a loss that this TRL does not have any more."""
    if loss_type not in loss_types(*classes):
        pytest.skip(f"TRL {trl.__version__} has no loss type {loss_type}")


def weights(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def distance(found, expected):
    """The largest difference between weights of two models."""
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)
