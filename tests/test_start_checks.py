"""Checks at the start of training: policy and reference are one model, the first step changes weights."""

import warnings

import pytest
import torch
from tiny_training import random_pairs, tiny_llama
from trainer_cases import SMALL, moved, rows_for, small_llama, trainer_for

from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.methods import METHODS
from po.references.sources import StoredReference
from po.training.collate import Collator
from po.training.start_checks import check_agreement
from po.training.trainer import MethodTrainer

LENGTHS = torch.tensor([4, 10])


def agree(policy, reference, model=None, bf16=False):
    check_agreement(
        torch.tensor(policy), torch.tensor(reference), LENGTHS, model or torch.nn.Linear(1, 1), bf16=bf16
    )


def test_differences_of_rounding_pass():
    agree([-8.0, -30.0], [-8.003, -30.009])
    agree([-8.0, -30.0], [-8.3, -30.9], bf16=True)


@pytest.mark.parametrize(
    ("reference", "bf16", "gap"),
    [([-8.0, -31.0], False, "0.1"), ([-9.0, -30.0], True, "0.25"), ([float("nan"), -30.0], False, "nan")],
)
def test_a_reference_of_another_model_is_refused_by_the_nats_per_token(reference, bf16, gap):
    with pytest.raises(InputFault, match=f"differ by {gap} nats per token"):
        agree([-8.0, -30.0], reference, bf16=bf16)


def test_a_model_that_drops_out_cannot_be_checked():
    agree([-8.0, -30.0], [-9.0, -40.0], torch.nn.Sequential(torch.nn.Dropout(0.1)))
    agree([-8.0, -30.0], [-9.0, -40.0], tiny_llama(**SMALL, attention_dropout=0.1))
    with pytest.raises(InputFault):
        agree([-8.0, -30.0], [-9.0, -40.0], torch.nn.Sequential(torch.nn.Dropout(0.0)))


def checked_trainer(tmp_path, policy, start, **arguments):
    method, values = METHODS["dpo"], METHODS["dpo"].check_params({})
    rows = rows_for(method, values, 8, start)
    args = trainer_for(tmp_path, method, values, rows, policy, start, **arguments).args
    return MethodTrainer(
        model=policy, args=args, train_dataset=rows, data_collator=Collator.of(method, values), method=method,
        params=values, reference=StoredReference(), same_start=True,
    )  # fmt: skip


def test_training_with_the_values_of_another_reference_stops_before_its_first_step(tmp_path):
    start = small_llama()
    policy = moved(start)
    before = policy.lm_head.weight.detach().clone()
    with pytest.raises(InputFault, match="policy and reference differ by"):
        checked_trainer(tmp_path, policy, start).train()
    assert torch.equal(policy.lm_head.weight, before)


def test_only_the_first_micro_batch_of_the_first_step_is_checked(tmp_path):
    """Later the two differ, as they should."""
    start = small_llama()
    trainer = checked_trainer(
        tmp_path, start, small_llama(), max_steps=3, gradient_accumulation_steps=2, learning_rate=0.05,
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 3
    assert abs(trainer.state.log_history[2]["logratio/chosen"]) > 0.1


def first_step(tmp_path, model, method="simpo", params=None, rows=None, **arguments):
    values, rows = METHODS[method].check_params(params or {}), rows or random_pairs(8)
    trainer = trainer_for(tmp_path, METHODS[method], values, rows, model, model, **arguments)
    trainer.train()
    return trainer


def test_a_learning_rate_that_bfloat16_rounds_away_is_refused(tmp_path):
    model = tiny_llama(**SMALL).to(torch.bfloat16)
    with pytest.raises(InputFault, match=r"changed no weights: a learning rate of 1e-09 is lost in torch.bf"):
        first_step(tmp_path, model, learning_rate=1e-9)
    assert first_step(tmp_path, model, learning_rate=1e-2).state.global_step == 1


def test_a_learning_rate_of_which_bfloat16_loses_most_is_told(tmp_path):
    model = tiny_llama(**SMALL).to(torch.bfloat16)
    with pytest.warns(UserWarning, match=r"changed \d+% of the weights of a matrix: .* 1e-05"):
        first_step(tmp_path, model, learning_rate=1e-5)


def test_steps_of_a_warm_up_that_begins_at_0_are_not_taken_for_lost_ones(tmp_path):
    trainer = first_step(tmp_path, tiny_llama(**SMALL), warmup_steps=2, max_steps=2, learning_rate=1e-3)
    assert trainer.state.log_history[0]["learning_rate"] == 0.0
    assert trainer.state.global_step == 2


def test_the_step_after_the_warm_up_is_still_looked_at(tmp_path):
    model = tiny_llama(**SMALL).to(torch.bfloat16)
    with pytest.raises(InputFault, match="changed no weights"):
        first_step(tmp_path, model, warmup_steps=1, max_steps=3, learning_rate=1e-9)


def ranked_right(rows, model):
    """The pairs with sides such that the model finds each chosen completion likelier."""
    sums, _ = completion_logps(attach_engine(model), Collator()(rows))
    return [
        row
        if chosen > rejected
        else row | {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]}
        for row, chosen, rejected in zip(rows, *sums.chunk(2), strict=True)
    ]


def test_a_hinge_that_no_pair_is_below_is_told(tmp_path):
    model = tiny_llama(**SMALL)
    rows, settings = ranked_right(random_pairs(8), model), {"delta": 1e-6, "beta": 50.0, "nll_weight": 0.0}
    with pytest.warns(UserWarning, match="the first step has no gradient: all is past the loss's margin"):
        first_step(tmp_path, model, "slic", settings, rows)


def test_an_ordinary_first_step_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        first_step(tmp_path, tiny_llama(**SMALL))
