import copy
import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from tiny_training import preference_trainer, random_pairs, tiny_llama
from torch import Tensor
from trainer_cases import Gradients, assert_same_gradients, moved, rows_for

from po.engine.forward import attach_engine, completion_logps
from po.methods import METHODS
from po.methods.method import Method
from po.methods.rewards import from_log_prob
from po.references.values import reference_values, with_values
from po.training.collate import Collator

PARAMS = {
    "dpo": {"beta": 0.5},
    "cpo": {"beta": 0.5, "nll_weight": 0.7, "nll_reduction": "token_batch"},
    "orpo": {"odds_weight": 0.5, "nll_reduction": "seq_mean"},
    "simpo": {"beta": 2.0, "gamma": 0.5, "nll_weight": 0.3, "nll_reduction": "seq_sum"},
}


def with_reference(rows, model):
    return with_values(rows, reference_values(copy.deepcopy(model), rows, "fp32"))


def run(tmp_path, model, rows, method, micro, accumulation, steps=1):
    gradients = Gradients()
    trainer = preference_trainer(
        tmp_path,
        model,
        rows,
        method,
        PARAMS.get(method),
        callbacks=[gradients],
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=1e9,
        optim="sgd",
        lr_scheduler_type="constant",
    )
    trainer.train()
    return trainer, gradients.steps


@pytest.mark.parametrize("method", [*PARAMS, "apo_zero_unpaired", "pl_dpo"])
@pytest.mark.parametrize(("micro", "accumulation"), [(1, 8), (4, 2)])
def test_the_split_into_micro_batches_changes_nothing(tmp_path, method, micro, accumulation):
    """Eleven examples in steps of eight: the second step is an incomplete accumulation."""
    start = tiny_llama().double()
    rows = rows_for(METHODS[method], METHODS[method].check_params(PARAMS.get(method, {})), 11, start)
    model = moved(start)
    whole, expected = run(tmp_path, model, rows, method, 8, 1, steps=2)
    split, found = run(tmp_path, model, rows, method, micro, accumulation, steps=2)
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert max(gradient.norm() for gradient in theirs.values()) > 1e-3
        assert_same_gradients(ours, theirs, 1e-6)
    for name, weights in whole.model.state_dict().items():
        assert torch.allclose(split.model.state_dict()[name], weights, rtol=1e-6, atol=1e-9), name
    for one, other in zip(whole.state.log_history[:2], split.state.log_history[:2], strict=True):
        one.pop("epoch"), other.pop("epoch")  # transformers counts it in micro-batches
        assert one == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in other.items()}


@pytest.mark.parametrize("method", PARAMS)
def test_the_step_is_that_of_the_mean_loss_over_its_pairs(tmp_path, method):
    """Against the loss written down without trainer, its likelihood term by definition."""
    start = tiny_llama()
    rows, model = with_reference(random_pairs(8), start), moved(start)
    trainer, (found,) = run(tmp_path, model, rows, method, 2, 4)
    entry = METHODS[method]
    params = entry.check_params(PARAMS[method])
    attach_engine(model)
    sums, lengths = completion_logps(model, Collator()(rows))
    rule = lengths if entry.logps == "mean" else torch.ones_like(lengths)
    values = dict(zip(("policy_chosen", "policy_rejected"), (sums / rule).chunk(2), strict=True))
    for side, name in enumerate(("reference_chosen", "reference_rejected")):
        values[name] = torch.tensor([row["reference_logps"][side] for row in rows])
    chosen, n = sums[:8], lengths[:8]
    reductions = {"token_batch": -chosen.sum() / n.sum(), "seq_mean": -chosen / n, "seq_sum": -chosen}
    if entry.needs_nll:
        values["chosen_nll"] = reductions[params["nll_reduction"]].expand(8)
    loss = entry.loss(**{name: values[name] for name in entry.inputs}, **entry.loss_arguments(params)).mean()
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    expected = {name: p.grad for name, p in model.named_parameters()}
    assert_same_gradients(found, expected, 1e-4)


def test_at_step_0_policy_and_reference_agree(tmp_path):
    model = tiny_llama()
    trainer, _ = run(tmp_path, model, with_reference(random_pairs(8), model), "dpo", 4, 2)
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-5)
    for name in ("rewards/chosen", "rewards/margins", "logratio/chosen", "logratio_mean/rejected"):
        assert log[name] == pytest.approx(0, abs=1e-5)


def test_the_log_has_the_names_and_values_that_trl_users_know(tmp_path):
    start = tiny_llama()
    rows, model = with_reference(random_pairs(8), start), moved(start)
    trainer, _ = run(tmp_path, model, rows, "dpo", 8, 1)
    log = trainer.state.log_history[0]
    sums, lengths = completion_logps(attach_engine(model), Collator()(rows))
    chosen, rejected = sums.detach().chunk(2)
    a = chosen - torch.tensor([row["reference_logps"][0] for row in rows])
    b = rejected - torch.tensor([row["reference_logps"][1] for row in rows])
    expected = {
        "rewards/chosen": 0.5 * a,
        "rewards/rejected": 0.5 * b,
        "rewards/margins": 0.5 * (a - b),
        "rewards/accuracies": (a > b).float(),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "logps_mean/chosen": chosen / lengths[:8],
        "logps_mean/rejected": rejected / lengths[8:],
        "logratio/chosen": a,
        "logratio/rejected": b,
        "logratio_mean/chosen": a / lengths[:8],
        "logratio_mean/rejected": b / lengths[8:],
    }
    assert 0 < expected["rewards/accuracies"].mean() < 1  # both kinds of pair are there
    for name, values in expected.items():
        assert log[name] == pytest.approx(values.mean().item(), abs=1e-4), name
    assert "nll_loss" not in log


def test_ipo_logs_averaged_rewards_and_summed_log_ratios(tmp_path):
    start = tiny_llama()
    rows, model = with_reference(random_pairs(8), start), moved(start)
    log = run(tmp_path, model, rows, "ipo", 8, 1)[0].state.log_history[0]
    assert log["rewards/chosen"] == pytest.approx(0.1 * log["logratio_mean/chosen"], abs=1e-6)
    assert abs(log["logratio/chosen"] - log["logratio_mean/chosen"]) > 1e-3


def test_the_likelihood_of_the_chosen_completion_is_logged(tmp_path):
    rows, model = random_pairs(8), tiny_llama()
    log = run(tmp_path, model, rows, "cpo", 4, 2)[0].state.log_history[0]
    sums, lengths = completion_logps(attach_engine(model), Collator()(rows))
    assert log["nll_loss"] == pytest.approx((-sums[:8].sum() / lengths[:8].sum()).item(), rel=1e-5)
    assert not any(name.startswith("logratio") for name in log)


def test_a_log_row_is_the_mean_over_all_steps_since_the_last(tmp_path):
    rows, model = random_pairs(16), tiny_llama()
    frozen = {"learning_rate": 0.0, "per_device_train_batch_size": 4, "max_steps": 4}
    each = preference_trainer(tmp_path, model, rows, "simpo", logging_steps=1, **frozen)
    every_four = preference_trainer(tmp_path, model, rows, "simpo", logging_steps=4, **frozen)
    each.train(), every_four.train()
    singles, (row, _) = each.state.log_history[:4], every_four.state.log_history
    for name in ("loss", "rewards/margins", "logps/chosen", "rewards/accuracies"):
        assert row[name] == pytest.approx(sum(single[name] for single in singles) / 4, rel=1e-5), name


def test_evaluation_logs_its_own_rows_and_leaves_training_as_it_is(tmp_path):
    rows, held_out, model = random_pairs(8), random_pairs(6, seed=5), tiny_llama()
    same = {"per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 2}
    alone = preference_trainer(tmp_path, model, rows, "cpo", **same)
    evaluated = preference_trainer(
        tmp_path, model, rows, "cpo", eval_rows=held_out, eval_strategy="steps", eval_steps=1,
        per_device_eval_batch_size=6, **same,
    )  # fmt: skip
    alone.train(), evaluated.train()
    training = [row for row in evaluated.state.log_history if "loss" in row]
    assert training == [row for row in alone.state.log_history if "loss" in row]
    for name, weights in alone.model.state_dict().items():
        assert torch.equal(evaluated.model.state_dict()[name], weights), name
    first = next(row for row in evaluated.state.log_history if "eval_loss" in row)
    assert {"eval_loss", "eval_rewards/margins", "eval_logps/chosen", "eval_nll_loss"} <= set(first)
    again = evaluated.evaluate()
    sums, _ = completion_logps(evaluated.model, Collator()(held_out))
    assert again["eval_loss"] > 0
    logged = evaluated.state.log_history[-1]["eval_logps/chosen"]
    assert logged == pytest.approx(sums[:6].mean().item(), rel=1e-5)


def square_loss(
    policy_chosen: Float[Tensor, " batch"], policy_rejected: Float[Tensor, " batch"], *, beta: float = 1.0
) -> Float[Tensor, " batch"]:
    """A method that no table has: the margin is pulled to 1."""
    return (beta * (policy_chosen - policy_rejected) - 1).square()


def test_a_method_is_a_function_and_an_entry(tmp_path):
    entry = Method(
        name="square",
        loss=square_loss,
        logps="mean",
        ranges={"beta": METHODS["dpo"].ranges["beta"]},
        formula="(beta R - 1)^2",
        paper="this test",
        rewards=from_log_prob("beta"),
    )
    trainer = preference_trainer(
        tmp_path, tiny_llama(), random_pairs(4), entry, max_steps=30, per_device_train_batch_size=4
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.1 * losses[0]
    assert replace(entry, name="other").inputs == ("policy_chosen", "policy_rejected")


def test_a_step_on_one_pair_widens_its_margin(tmp_path):
    model = tiny_llama()
    rows = with_reference(random_pairs(1), model)
    trainer, _ = run(tmp_path, model, rows, "dpo", 1, 1)
    before, _ = completion_logps(attach_engine(model), Collator()(rows))
    after, _ = completion_logps(trainer.model, Collator()(rows))
    assert after[0] - after[1] > before[0] - before[1]
