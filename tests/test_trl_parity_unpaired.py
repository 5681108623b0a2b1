"""Losses of single completions against TRL's KTO trainer, and BCO's where TRL still has one."""

import pytest
import torch
from tiny_training import VOCABULARY
from torch.nn import functional
from trl_side import (
    REWARDS,
    assert_same_steps,
    labelled_completions,
    loss_types,
    our_steps,
    steps_of,
    their_dpo,
    their_trainer,
    tokenizer,
    trl,
    unless_gone,
)

from po.references.mismatch import with_mismatched

WEIGHTS = {"desirable_weight": 1.3, "undesirable_weight": 0.6}
CASES = {
    "kto": ("kto", {"beta": 0.3, **WEIGHTS}, {"beta": 0.3, **WEIGHTS}),
    "apo_zero_unpaired": ("apo_zero_unpaired", {"beta": 0.3}, {"beta": 0.3}),
}
"""TRL's loss type -> our method, our hyperparameters, TRL's options."""


def their_kto(folder, **options):
    return steps_of(their_trainer(trl.KTOTrainer, trl.KTOConfig, folder, labelled_completions(), **options))


def rows_of(theirs):
    return [
        {
            "prompt_ids": row["prompt_ids"],
            "completion_ids": row["completion_ids"],
            "desirable": bool(row["label"]),
        }
        for row in theirs.trainer.train_dataset
    ]


def test_every_loss_type_of_kto_trainer_is_compared():
    assert loss_types(trl.KTOTrainer) <= set(CASES)


@pytest.mark.parametrize("loss_type", CASES)
def test_a_step_of_a_loss_is_that_of_kto_trainer(tmp_path, loss_type):
    unless_gone(loss_type, trl.KTOTrainer)
    method, params, options = CASES[loss_type]
    theirs = their_kto(tmp_path, loss_type=loss_type, **options)
    ours = our_steps(tmp_path, method, params, with_mismatched(rows_of(theirs)))
    assert_same_steps(ours, theirs, (*REWARDS, "logps/chosen", "logps/rejected"))


def test_kto_measures_its_distance_on_the_completions_that_trl_takes(tmp_path):
    theirs = their_kto(tmp_path, beta=0.3)
    rows = with_mismatched(rows_of(theirs))
    foreign = [row["KL_completion_ids"] for row in theirs.trainer.train_dataset]
    assert [row["mismatched_ids"] for row in rows] == [[ids] for ids in foreign]
    assert theirs.log["kl"] > 0.01


def test_bco_without_a_shift_halves_what_bco_pair_of_dpo_trainer_makes_of_a_pair(tmp_path):
    """Two losses per pair, of which one is the mean and the other the sum."""
    theirs = their_dpo(tmp_path, beta=0.3, loss_type="bco_pair")
    ours = our_steps(tmp_path, "bco", {"beta": 0.3, "delta_rule": "none"})
    assert_same_steps(ours, theirs, scale=2.0)


def prompt_vector(input_ids, attention_mask):
    """Stands in for an embedding model: how often each token occurs."""
    counts = functional.one_hot(input_ids, VOCABULARY) * attention_mask.unsqueeze(-1)
    return counts.sum(dim=1).float()


def bco_row(trainer, row, matched):
    """A row of BCO's trainer for ours, with the weight that its classifier gives the prompt."""
    found = {
        "prompt_ids": row["prompt_input_ids"],
        "completion_ids": [token for token in row["completion_labels"] if token != -100],
        "desirable": row["label"],
    }
    if not matched:
        return found
    ids = torch.tensor([row["embedding_input_ids"]])
    ratio = trainer._get_udm_weight(prompt_vector(ids, torch.ones_like(ids))).item()
    return found | {"density_ratio": [1.0 if row["label"] else ratio]}


@pytest.mark.parametrize("matched", [False, True])
def test_steps_of_bco_are_those_of_bco_trainer_with_its_pooled_shift(tmp_path, matched):
    """Two steps, so that the shift remembers; prompts are matched as TRL's classifier weighs them."""
    bco = pytest.importorskip("trl.experimental.bco", reason="this TRL has no BCO trainer")
    embedding = {"embedding_func": prompt_vector, "embedding_tokenizer": tokenizer()} if matched else {}
    trainer = their_trainer(
        bco.BCOTrainer,
        bco.BCOConfig,
        tmp_path,
        labelled_completions(),
        changes={"max_steps": 2},
        parts=embedding,
        beta=0.3,
        max_density_ratio=1.5,
    )
    rows = [bco_row(trainer, row, matched) for row in trainer.train_dataset]
    ours = our_steps(tmp_path, "bco:bco", {"beta": 0.3, "udm": matched}, rows, changes={"max_steps": 2})
    assert_same_steps(ours, steps_of(trainer))
    if matched:
        assert len({row["density_ratio"][0] for row in rows}) > 2
