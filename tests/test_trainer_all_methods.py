"""Every method of the table, and some that are put together, through the one trainer."""

import pytest
import torch
from trainer_cases import (
    assert_same_gradients,
    plain_inputs,
    reference_for,
    rows_for,
    small_llama,
    start_and_policy,
    step_gradients,
    trainer_for,
    with_stored,
)

from po.engine.forward import attach_engine
from po.methods import METHODS, resolve
from po.references.sources import LiveReference

COMPOSED = (
    "wpo(ipo)", "wpo(simpo)", "mix(dpo, sft)", "mix(dpo, bco_pair, sft)", "tr_dpo(ipo)", "tr_dpo(kto)",
    "wpo(tr_dpo(dpo))",
)  # fmt: skip
OPTIONS = {
    "dpo": {"beta": 0.5},
    "ipo": {"length_norm": False},
    "slic_dpo": {"delta": 20.0},  # past its margin a hinge has no gradient
    "simpo": {"nll_weight": 0.3},
    "simpo_hinge": {"delta": 20.0},
    "rpo": {"nll_weight": 0.5},
    "arpo": {"tau_min": -1.0},
    "aot": {"beta": 2.0},  # with a small one the loss is nearly linear, and the order changes nothing
    "aot_unpaired": {"beta": 2.0},
    "bco": {"udm": True},
    "ld_dpo": {"alpha": 0.3},
    "sppo": {"labels": "soft"},
    "soft_dpo": {"link": "logit"},
    "odpo": {"transform": "identity"},
    "orpo": {"nll_scope": "prompt_and_completion"},
}


def values_of(name, **params):
    method = resolve(name)
    return method, method.check_params(OPTIONS.get(name, {}) | params)


ALL = (*METHODS, *COMPOSED)
PLAIN = [name for name in ALL if not resolve(name).batch_coupled and resolve(name).logps != "sampled"]
COUPLED = [name for name in ALL if resolve(name).batch_coupled]
WITH_NLL = [
    (name, reduction) for name in PLAIN if resolve(name).needs_nll for reduction in ("seq_mean", "seq_sum")
]


def setting(tmp_path, name, n=8, **params):
    """A trainer, its rows, and the model that it starts from."""
    method, values = values_of(name, **params)
    start, policy = start_and_policy(method, values, small_llama())
    rows = rows_for(method, values, n, start)
    return trainer_for(tmp_path, method, values, rows, policy, start), rows, policy, start


def assert_the_split_does_not_matter(trainer, rows):
    loss, expected = step_gradients(trainer, rows, 8)
    assert max(gradient.norm() for gradient in expected.values()) > 1e-6
    for micro in (1, 4):
        split, found = step_gradients(trainer, rows, micro)
        assert split == pytest.approx(loss, rel=1e-6, abs=1e-6)
        assert_same_gradients(found, expected, 1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_the_split_into_micro_batches_changes_no_gradient(tmp_path, name):
    """Eight examples at once, one by one, and in two fours."""
    trainer, rows, _, _ = setting(tmp_path, name)
    assert_the_split_does_not_matter(trainer, rows)


@pytest.mark.parametrize(("name", "reduction"), WITH_NLL)
def test_the_split_changes_no_gradient_under_other_reductions_of_the_likelihood(tmp_path, name, reduction):
    trainer, rows, _, _ = setting(tmp_path, name, nll_reduction=reduction)
    assert_the_split_does_not_matter(trainer, rows)


def test_the_table_has_methods_of_every_form_on_both_sides():
    forms = {resolve(name).data for name in PLAIN}
    assert forms == {"paired", "unpaired", "ranked", "supervised"}
    assert {resolve(name).data for name in COUPLED} == {"paired", "unpaired"}


@pytest.mark.parametrize("name", [n for n in ALL if resolve(n).logps != "sampled"])
def test_a_step_is_that_of_the_loss_written_down_without_the_trainer(tmp_path, name):
    """All inputs from the model's own logits, one completion at a time; states as they are after one step."""
    method, values = values_of(name)
    trainer, rows, policy, start = setting(tmp_path, name)
    loss, found = step_gradients(trainer, rows, 8)
    inputs = plain_inputs(method, values, policy, start, rows)
    taken = {key: inputs[key] for key in method.inputs if key in inputs}
    assert taken.get("kl", torch.ones(())) > 0  # a negative one is clamped, and would not be looked at
    expected = method.loss(**taken, **method.loss_arguments(values)).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    assert_same_gradients(found, {key: p.grad for key, p in policy.named_parameters()}, 1e-4)


@pytest.mark.parametrize("name", COUPLED)
def test_a_batch_coupled_method_does_depend_on_the_size_of_a_micro_batch(tmp_path, name):
    """Else it should not be marked: reports say of marked ones that batch size is a setting of theirs."""
    shift = {"bco_pair_delta_rule": "half_sum"} if name == "mixed_mpo" else {}
    trainer, rows, _, _ = setting(tmp_path, name, **shift)
    _, whole = step_gradients(trainer, rows, 8)
    again, *_ = setting(tmp_path, name, **shift)
    _, split = step_gradients(again, rows, 2)
    gaps = [(split[key] - whole[key]).norm() / (whole[key].norm() + 1e-12) for key in whole]
    assert max(gaps) > 1e-4


def stored_methods():
    return [name for name in ALL if resolve(name).stored_reference(values_of(name)[1])]


@pytest.mark.parametrize("name", stored_methods())
def test_a_stored_reference_gives_the_step_of_a_model_that_is_asked(tmp_path, name):
    method, values = values_of(name)
    trainer, rows, policy, start = setting(tmp_path, name)
    loss, expected = step_gradients(trainer, rows, 8)
    bare = [{key: v for key, v in row.items() if not key.startswith("reference_")} for row in rows]
    assert bare[0] != rows[0]
    frozen = LiveReference(attach_engine(start))
    asked = trainer_for(tmp_path, method, values, bare, policy, start, reference=frozen)
    live, found = step_gradients(asked, bare, 8)
    assert live == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert_same_gradients(found, expected, 1e-4)


def test_methods_that_need_a_model_as_reference_have_nothing_stored():
    live = {name for name in ALL if resolve(name).needs_live_reference}
    assert {"tdpo1", "tdpo2", "tr_dpo", "tr_dpo(kto)"} <= live
    start = small_llama()
    for name in live:
        method, values = values_of(name)
        assert with_stored([{"prompt_ids": [3]}], method, values, start) == [{"prompt_ids": [3]}]
        assert reference_for(method, lambda: start, start) is not None


def test_the_options_of_the_cases_exist():
    for name, params in OPTIONS.items():
        rules = resolve(name).rules
        assert set(params) <= set(rules)
        assert all(rules[key].allows(value) for key, value in params.items())


def test_aot_on_micro_batches_of_one_is_dpo(tmp_path):
    trainer, rows, _, _ = setting(tmp_path, "aot")
    _, found = step_gradients(trainer, rows, 1)
    dpo, *_ = setting(tmp_path, "dpo", beta=2.0)
    _, expected = step_gradients(dpo, rows, 1)
    assert_same_gradients(found, expected, 1e-6)
    assert torch.tensor([g.norm() for g in expected.values()]).max() > 1e-6
