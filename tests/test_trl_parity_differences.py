"""Where docs/trl.md says that TRL's trainers do something else, they do, and ours what it says."""

import pytest
import torch
from datasets import Dataset
from tiny_training import random_pairs
from trl_side import (
    N_PAIRS,
    assert_same_steps,
    labelled_completions,
    our_steps,
    pairs,
    their_dpo,
    their_trainer,
    tokenizer,
    trl,
)

from po.references.mismatch import with_mismatched


def gap(found, expected):
    """Relative distance of two steps' gradients."""
    found, expected = found.gradients[0], expected.gradients[0]
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
    return float(difference.norm() / torch.cat([g.flatten() for g in expected.values()]).norm())


def split_into(micro):
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": N_PAIRS // micro}


def test_accumulation_changes_nothing_where_losses_are_means_over_pairs(tmp_path):
    theirs = their_dpo(tmp_path, beta=0.3, changes=split_into(4))
    assert_same_steps(our_steps(tmp_path, "dpo", {"beta": 0.3}, changes=split_into(4)), theirs)
    assert gap(theirs, their_dpo(tmp_path, beta=0.3)) < 1e-5


def test_a_likelihood_is_the_mean_of_the_step_here_and_of_micro_batches_in_trl(tmp_path):
    whole, split = (
        their_dpo(tmp_path, loss_type="sft"),
        their_dpo(tmp_path, loss_type="sft", changes=split_into(2)),
    )
    ours = our_steps(tmp_path, "sft", {}, changes=split_into(2))
    assert gap(ours, whole) < 1e-5
    assert gap(split, whole) > 1e-2


def test_each_pair_counts_alike_here_and_each_micro_batch_in_trl(tmp_path):
    """Five pairs: a micro-batch of four, and one of a single pair."""
    five = {"data": Dataset.from_list(list(pairs())[:5])}
    whole = their_dpo(tmp_path, beta=0.3, **five)
    split = their_dpo(tmp_path, beta=0.3, changes=split_into(4), **five)
    ours = our_steps(tmp_path, "dpo", {"beta": 0.3}, random_pairs(N_PAIRS)[:5], changes=split_into(4))
    assert gap(ours, whole) < 1e-5
    assert gap(split, whole) > 1e-2


def test_foreign_completions_come_from_the_row_before_here_and_from_the_micro_batch_in_trl(tmp_path):
    rows = list(their_kto(tmp_path, 4).train_dataset)
    assert rows[4]["KL_completion_ids"] == rows[7]["completion_ids"]
    assert with_mismatched(rows)[4]["mismatched_ids"] == [rows[3]["completion_ids"]]
    with pytest.raises(ValueError, match="batch size must be > 1"):
        their_kto(tmp_path, 1)


def their_kto(folder, micro):
    changes = {"per_device_train_batch_size": micro}
    return their_trainer(trl.KTOTrainer, trl.KTOConfig, folder, labelled_completions(), changes=changes)


def test_trl_puts_bos_before_the_prompts_of_cpo_though_the_tokenizer_puts_none(tmp_path):
    cpo = pytest.importorskip("trl.experimental.cpo")
    row = their_trainer(cpo.CPOTrainer, cpo.CPOConfig, tmp_path).train_dataset[0]
    prompt = random_pairs(N_PAIRS)[0]["prompt_ids"]
    assert tokenizer()("w5")["input_ids"] == [5]
    assert row["chosen_input_ids"][: len(prompt) + 1] == [tokenizer().bos_token_id, *prompt]


def test_trl_does_not_read_label_smoothing_for_sigmoid(tmp_path):
    theirs = their_dpo(tmp_path, beta=0.3, label_smoothing=0.2)
    assert_same_steps(our_steps(tmp_path, "dpo", {"beta": 0.3}), theirs)
    assert gap(our_steps(tmp_path, "cdpo", {"beta": 0.3, "eps": 0.2}), theirs) > 1e-2


def test_trl_cannot_weigh_a_sum_with_sft_and_here_each_pair_has_its_own_likelihood(tmp_path):
    with pytest.raises(RuntimeError, match="single memory location"):
        their_dpo(tmp_path, use_weighting=True, loss_type=["sigmoid", "sft"])
    ours = our_steps(tmp_path, "wpo(mix(dpo, sft))", {})
    assert ours.loss > our_steps(tmp_path, "wpo(dpo)", {}).loss
