"""What the trainer of the library starts from."""

import pytest
import torch
from tiny_training import random_pairs, tiny_llama
from transformers import TrainingArguments

from po import PreferenceConfig, PreferenceTrainer
from po.faults import InputFault
from po.library.start import load_model


def config(folder):
    return PreferenceConfig(output_dir=str(folder / "out"), use_cpu=True, report_to="none")


def test_weights_that_were_saved_in_bfloat16_are_trained_in_float32(tmp_path):
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    assert load_model(str(tmp_path / "model"), config(tmp_path)).dtype == torch.float32


def test_a_model_without_weights_to_train_is_refused(tmp_path):
    frozen = tiny_llama().requires_grad_(False)
    with pytest.raises(InputFault, match="is_trainable=True"):
        PreferenceTrainer(model=frozen, args=config(tmp_path), train_dataset=random_pairs(4))


def test_arguments_of_another_trainer_are_refused_by_name(tmp_path):
    with pytest.raises(InputFault, match="args is a TrainingArguments; give a PreferenceConfig"):
        PreferenceTrainer(
            model=tiny_llama(),
            args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            train_dataset=random_pairs(4),
        )
