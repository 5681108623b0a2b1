"""What must not change a loss: the order of the batch, constants that cancel, the other pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worked_inputs import AVERAGED, inputs_of, loss_of, losses_and_gradients
from worked_values import START

from po.methods import METHODS

COMPARING = [name for name, method in METHODS.items() if method.data != "supervised"]
PAIRED = [name for name in COMPARING if METHODS[name].paired]
ANCHORED = [name for name in COMPARING if METHODS[name].needs_reference]
# Losses that read the level of the policy's log-probabilities, not only leads and log-ratios.
LEVEL = {"orpo", "alphapo", "simper", "arpo"}
# Losses that read the policy's own lead, which a constant on one side of policy and reference changes.
OWN_LEAD = {"fcpo", "aot"}
# Losses that judge each completion on its own, against its reference.
POINTWISE = {"nca", "bco_pair", "apo_zero", "apo_down", "kto_pair", "sppo", "cal_dpo", "dpop", "mixed_mpo"}
POINTWISE |= {name for name, method in METHODS.items() if method.data == "unpaired" and method.per_example}

nats = st.floats(-60, 0)
pairs = st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=5)


def columns(rows):
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def losses(name, *log_probs, params=None):
    return losses_and_gradients(name, params, *log_probs)[0]


def assert_equal(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def per_example(params_of):
    """The methods that have a loss for each example, with an NLL that differs from pair to pair."""
    return [
        (name, {"nll_reduction": "seq_mean"} if method.needs_nll else {})
        for name, method in METHODS.items()
        if params_of(method)
    ]


def selected(inputs, rows):
    return {key: tensor[rows] if tensor.ndim else tensor for key, tensor in inputs.items()}


@pytest.mark.parametrize(("name", "params"), per_example(lambda method: method.per_example))
def test_permuting_the_batch_permutes_the_losses(name, params):
    method = METHODS[name]
    inputs, found = inputs_of(name, params), loss_of(name, params)
    order = torch.arange(len(found)).roll(1)
    arguments = method.loss_arguments(method.check_params(params))
    assert_equal(method.loss(**selected(inputs, order), **arguments), found[order])
    assert len(found.unique()) > 1


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.per_example])
def test_permuting_the_batch_keeps_the_losses_of_ranks_and_halves(name):
    inputs, found = inputs_of(name), loss_of(name)
    order = torch.arange(len(next(iter(inputs.values())))).roll(1)
    permuted = METHODS[name].loss(**selected(inputs, order))
    assert_equal(permuted.sort().values, found.sort().values)


@pytest.mark.parametrize(("name", "params"), per_example(lambda method: not method.batch_coupled))
def test_the_loss_of_an_example_does_not_depend_on_the_others(name, params):
    method = METHODS[name]
    arguments = method.loss_arguments(method.check_params(params))
    inputs, together = inputs_of(name, params), loss_of(name, params)
    alone = [method.loss(**selected(inputs, [i]), **arguments) for i in range(len(together))]
    assert_equal(torch.cat(alone), together)


def test_methods_whose_loss_depends_on_the_batch_say_so():
    assert {name for name, method in METHODS.items() if method.batch_coupled} == {
        *("aot", "aot_unpaired", "kto", "kto_pair", "bco", "bco_pair", "beta_dpo", "mixed_mpo"),
        "sampo",  # draws for a micro-batch
    }


@pytest.mark.parametrize("name", sorted(set(ANCHORED) - OWN_LEAD))
@given(pairs, st.floats(-20, 20))
@settings(max_examples=15, deadline=None)
def test_a_constant_on_both_log_probs_of_a_completion_changes_nothing(name, rows, constant):
    chosen, rejected, reference_chosen, reference_rejected = columns(rows)
    shifted = losses(name, chosen + constant, rejected, reference_chosen + constant, reference_rejected)
    assert_equal(shifted, losses(name, chosen, rejected, reference_chosen, reference_rejected), 1e-9)


@pytest.mark.parametrize("name", sorted(OWN_LEAD))
def test_a_constant_on_both_log_probs_of_one_completion_changes_losses_that_read_the_policys_lead(name):
    inputs = list(inputs_of(name).values())
    constant = torch.tensor([-2.0, 0.0, 0.0]).double()
    shifted = losses(name, inputs[0] + constant, inputs[1], inputs[2] + constant, inputs[3])
    assert (shifted.sum() - losses(name, *inputs).sum()).abs() > 1e-3


@pytest.mark.parametrize("name", sorted(set(COMPARING) - LEVEL))
@given(pairs, st.floats(-20, 20))
@settings(max_examples=15, deadline=None)
def test_a_constant_on_every_log_prob_of_a_pair_changes_nothing(name, rows, constant):
    shifted = losses(name, *(column + constant for column in columns(rows)))
    assert_equal(shifted, losses(name, *columns(rows)), 1e-9)


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_some_losses_depend_on_the_level_of_the_log_probs_and_not_only_on_their_difference(name):
    chosen, rejected = AVERAGED["policy_chosen"], AVERAGED["policy_rejected"]
    assert (losses(name, chosen - 1, rejected - 1) - losses(name, chosen, rejected)).abs().min() > 1e-5


@pytest.mark.parametrize(
    ("name", "params", "value"),
    [row[:3] for row in START if row[0] not in LEVEL | POINTWISE],
)
def test_equal_completions_cost_what_no_lead_costs(name, params, value):
    # Policy and reference differ, but by the same amount on both sides.
    policy = torch.tensor([-11.0, -13.5, -7.0], dtype=torch.float64)
    reference = torch.tensor([-11.2, -13.0, -7.0], dtype=torch.float64)
    found = losses(name, policy, policy, reference, reference, params=params)
    assert found.tolist() == pytest.approx([value] * 3, abs=1e-8)


@pytest.mark.parametrize(("name", "params", "value"), [row[:3] for row in START if row[0] in POINTWISE])
def test_equal_completions_at_the_reference_cost_what_they_cost_at_the_start(name, params, value):
    policy = torch.tensor([-11.0, -13.5, -7.0], dtype=torch.float64)
    found = losses(name, policy, policy, policy, policy, params=params)
    assert found.sum().item() == pytest.approx(3 * value, abs=3e-8)


@pytest.mark.parametrize("name", sorted(LEVEL - {"arpo"}))
def test_equal_completions_cost_the_same_at_every_level_where_only_their_difference_is_judged(name):
    policy = torch.tensor([-0.5, -1.3, -4.0], dtype=torch.float64)
    found = losses(name, policy, policy)
    value = next(row[2] for row in START if row[0] == name)
    assert found.tolist() == pytest.approx([value] * 3, abs=1e-8)
