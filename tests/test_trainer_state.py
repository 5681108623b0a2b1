"""Losses that remember or draw, references that move, and evaluation, which must not disturb either."""

import math

import pytest
import torch
from tiny_training import random_pairs, tiny_llama
from trainer_cases import (
    SMALL,
    assert_same_gradients,
    moved,
    plain_inputs,
    rows_for,
    small_llama,
    step_gradients,
    trainer_for,
    with_stored,
)
from transformers import TrainerCallback

from po.methods import METHODS, resolve
from po.references.mismatch import with_mismatched
from po.references.moving import MovingReference
from po.references.sources import StoredReference

REMEMBERING = {"bco": {}, "beta_dpo": {"keep": 0.5}, "sampo": {}, "bco_pair": {"delta_rule": "pooled"}}


def values_of(name, params=None):
    return METHODS[name].check_params(params or {})


def training(tmp_path, name, params, start, rows, **arguments):
    """A trainer of four steps that logs each."""
    method, values = METHODS[name], values_of(name, params)
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, **arguments}
    return trainer_for(tmp_path, method, values, rows, moved(start), start, **settings)


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def assert_equal_weights(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("name", REMEMBERING)
def test_evaluation_leaves_what_a_loss_remembers_and_draws_as_it_is(tmp_path, name):
    start, params = small_llama(), REMEMBERING[name]
    rows, held_out = (rows_for(METHODS[name], values_of(name, params), 16, start, seed) for seed in (0, 5))
    alone = training(tmp_path, name, params, start, rows)
    evaluated = training(
        tmp_path, name, params, start, rows, eval_rows=held_out, eval_strategy="steps", eval_steps=1,
        per_device_eval_batch_size=4,
    )  # fmt: skip
    evaluated.evaluate()
    assert evaluated.loss_state.state_dict() == alone.loss_state.state_dict()
    alone.train(), evaluated.train()
    assert losses(evaluated) == losses(alone) and len(losses(alone)) == 4
    assert evaluated.loss_state.state_dict() == alone.loss_state.state_dict()
    assert_equal_weights(evaluated.model, alone.model)


def test_evaluation_leaves_the_random_numbers_of_training_as_they_are(tmp_path):
    """A model that drops out draws from torch's own generator, which loaders of data draw from too."""
    start = tiny_llama(**SMALL, attention_dropout=0.4)
    rows = rows_for(METHODS["dpo"], values_of("dpo"), 16, start)
    arguments = {"eval_rows": rows[:8], "eval_strategy": "steps", "eval_steps": 1}
    alone = training(tmp_path, "dpo", {}, start, rows)
    alone.train()
    evaluated = training(tmp_path, "dpo", {}, start, rows, **arguments)  # seeds torch as the first one did
    evaluated.train()
    assert losses(evaluated) == losses(alone)
    assert_equal_weights(evaluated.model, alone.model)


def test_evaluating_twice_gives_the_same_numbers(tmp_path):
    start = small_llama()
    rows = rows_for(METHODS["sampo"], values_of("sampo"), 8, start)
    trainer = training(tmp_path, "sampo", {}, start, rows, eval_rows=rows, per_device_eval_batch_size=4)
    one, again = (trainer.evaluate()["eval_loss"] for _ in range(2))
    assert one == again


def test_a_drawn_sum_of_policy_and_reference_is_over_the_same_tokens(tmp_path):
    """Policy and reference are one model: any token that only one of them counted would show."""
    start = small_llama()
    method, values = METHODS["sampo"], values_of("sampo")
    rows = rows_for(method, values, 8, start)
    loss, _ = step_gradients(trainer_for(tmp_path, method, values, rows, start, start), rows, 4)
    assert loss == pytest.approx(math.log(2), abs=1e-6)


def test_every_micro_batch_and_every_step_draws_anew_and_a_resumed_one_as_before(tmp_path):
    start = small_llama()
    method, values = METHODS["sampo"], values_of("sampo", {"beta": 2.0})
    rows = rows_for(method, values, 4, start)
    trainers = [trainer_for(tmp_path, method, values, rows, moved(start), start) for _ in range(2)]
    trainer, again = trainers
    twice = [*rows, *rows]
    loss, _ = step_gradients(trainer, twice, 4)
    assert loss == step_gradients(again, twice, 4)[0]
    assert loss != 2 * step_gradients(trainer, rows, 4)[0] / 2
    trainer.state.global_step = again.state.global_step = 3
    later = step_gradients(trainer, twice, 4)[0]
    assert later != loss
    assert later == step_gradients(again, twice, 4)[0]


@pytest.mark.parametrize("name", ["kto", "bco", "apo_zero_unpaired", "aot_unpaired"])
def test_pairs_are_two_completions_to_an_unpaired_method(tmp_path, name):
    start = small_llama()
    method, values = METHODS[name], values_of(name, {"beta": 1.0})
    pairs = with_stored(with_mismatched(random_pairs(6)), method, values, start)
    singles = [
        {
            "prompt_ids": row["prompt_ids"],
            "completion_ids": row[("chosen_ids", "rejected_ids")[k]],
            "desirable": k == 0,
            **{key: [row[key][k]] for key in row if key.startswith(("reference_", "mismatched_"))},
        }
        for row in pairs
        for k in (1, 0)
    ]
    policy = moved(start)
    loss, expected = step_gradients(trainer_for(tmp_path, method, values, pairs, policy, start), pairs, 6)
    found = step_gradients(trainer_for(tmp_path, method, values, singles, policy, start), singles, 12)
    assert found[0] == pytest.approx(loss, rel=1e-6)
    assert_same_gradients(found[1], expected, 1e-6)


def test_the_kl_of_kto_is_logged(tmp_path):
    start = small_llama()
    method, values = METHODS["kto"], values_of("kto")
    rows = rows_for(method, values, 8, start)
    trainer = trainer_for(
        tmp_path, method, values, rows, moved(start), start, per_device_train_batch_size=8, learning_rate=0.0
    )
    trainer.train()
    expected = plain_inputs(method, values, moved(start), start, rows)["kl"].item()
    assert abs(expected) > 0.1
    assert trainer.state.log_history[0]["kl"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["wpo", "mix(dpo, bco_pair, sft)", "tr_dpo(ipo)", "kto", "pl_dpo", "bco"])
def test_training_lowers_the_loss_of_what_it_sees(tmp_path, name):
    method = resolve(name)
    start = tiny_llama(**SMALL)
    values = method.check_params({})
    rows = rows_for(method, values, 8, start)
    trainer = trainer_for(
        tmp_path, method, values, rows, start, start, max_steps=25, per_device_train_batch_size=8,
        learning_rate=1e-2, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train()
    found = losses(trainer)
    assert found[-1] < 0.9 * found[0]
    log = trainer.state.log_history
    assert log[-2]["rewards/margins"] > log[0]["rewards/margins"] + 1e-3


def reference_of(policy, other):
    return MovingReference(other, lambda: list(zip(other.parameters(), policy.parameters(), strict=True)))


class PolicyWeights(TrainerCallback):
    """Keeps the policy's weights after each step."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.detach().clone() for name, p in model.named_parameters()})


@pytest.mark.parametrize("mix", [0.6, 1.0])
def test_the_reference_moves_every_sync_steps_by_the_mix_and_never_in_between(tmp_path, mix):
    start = small_llama()
    method, values = METHODS["tr_dpo"], values_of("tr_dpo", {"sync_steps": 2, "sync_mix": mix})
    policy, seen = moved(start), PolicyWeights()
    rows = rows_for(method, values, 10, start)
    trainer = trainer_for(
        tmp_path, method, values, rows, policy, start, callbacks=[seen], max_steps=5,
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer.train()
    expected = {name: p.detach().clone() for name, p in start.named_parameters()}
    for step in (2, 4):
        expected = {name: e.lerp(seen.steps[step - 1][name], mix) for name, e in expected.items()}
    for name, weights in trainer.reference.model.named_parameters():
        assert torch.equal(weights, expected[name]), name
    assert not torch.equal(expected["lm_head.weight"], seen.steps[4]["lm_head.weight"])
    log = [row for row in trainer.state.log_history if "loss" in row]
    apart = [abs(row["logratio/chosen"]) for row in log]
    if mix == 1.0:  # the steps after a move compare the policy with itself
        assert apart[2] == pytest.approx(0, abs=1e-6) and apart[4] == pytest.approx(0, abs=1e-6)
    assert min(apart[0], apart[1], apart[3]) > 1e-4


def test_the_worked_moves_of_one_weight():
    policy, other = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    policy.weight.data.fill_(2.0), other.weight.data.fill_(1.0)
    reference = reference_of(policy, other)
    reference.follow(0.6)
    assert other.weight.item() == pytest.approx(1.6)
    reference.follow(0.6)
    assert other.weight.item() == pytest.approx(1.84)
    other.weight.data.fill_(1.0)
    reference.follow(0.9)
    assert other.weight.item() == pytest.approx(1.9)


def test_a_moving_reference_is_saved_and_loaded_to_the_last_bit(tmp_path):
    policy, other, third = small_llama(1), small_llama(2), small_llama(3)
    reference = reference_of(policy, other)
    reference.follow(0.3)
    reference.save(tmp_path, writes=False)
    assert not list(tmp_path.iterdir())
    reference.save(tmp_path, writes=True)
    reference_of(policy, third).load(tmp_path)
    assert_equal_weights(other, third)


def test_a_moving_reference_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="other shapes"):
        reference_of(torch.nn.Linear(1, 2), torch.nn.Linear(2, 2))


def test_stored_values_cannot_be_the_reference_that_moves(tmp_path):
    start = small_llama()
    method, values = METHODS["tr_dpo"], values_of("tr_dpo")
    assert method.needs_live_reference and method.stored_reference(values) == ()
    with pytest.raises(ValueError, match="tr_dpo moves its reference; give a MovingReference"):
        trainer_for(tmp_path, method, values, random_pairs(4), start, start, reference=StoredReference())


def test_the_reference_of_tr_dpo_is_no_part_of_what_is_trained(tmp_path):
    start = small_llama()
    method, values = METHODS["tr_dpo"], values_of("tr_dpo", {"sync_steps": 100})
    rows = rows_for(method, values, 4, start)
    trainer = trainer_for(tmp_path, method, values, rows, start, start, max_steps=2)
    trainer.train()
    assert_equal_weights(trainer.reference.model, start)
    assert not torch.equal(trainer.model.lm_head.weight, start.lm_head.weight)
