"""What the trainer refuses before it begins, whoever makes it."""

import pytest
from tiny_library import library_trainer
from tiny_training import preference_trainer, random_pairs, tiny_llama
from transformers import TrainingArguments

from po.faults import InputFault


@pytest.mark.parametrize("library", [False, True])
def test_several_gpus_in_one_process_are_refused(tmp_path, monkeypatch, library):
    """Transformers would split each micro-batch among them, and tear pairs apart."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(InputFault, match="2 GPUs are visible to one process.*CUDA_VISIBLE_DEVICES.*torchrun"):
        if library:
            library_trainer(tmp_path, random_pairs(8))
        else:
            preference_trainer(tmp_path, tiny_llama(), random_pairs(8), "simpo")
