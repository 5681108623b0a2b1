"""What losses remember: worked values, evaluation, several processes, a checkpoint and back."""

import json

import pytest
import torch
from worked_inputs import inputs_of, row

from po.methods import METHODS, resolve
from po.methods.loss_state import LossState, MismatchedKL, RunningMargin, RunningShift

SHIFT = {"beta": 0.1, "delta_rule": "half_sum"}
MARGIN = {"decay": 0.9, "keep": 1.0}


def alone(values):
    """The sum over the processes of a run with one."""
    return values


def unpaired(wanted, unwanted):
    """Completions with these log-ratios."""
    policy = row(*wanted, *unwanted)
    desirable = torch.tensor([True] * len(wanted) + [False] * len(unwanted))
    return {"policy": policy, "reference": torch.zeros_like(policy), "desirable": desirable}


def paired(margins):
    policy = row(*margins)
    zero = torch.zeros_like(policy)
    return {
        "policy_chosen": policy, "policy_rejected": zero, "reference_chosen": zero, "reference_rejected": zero
    }  # fmt: skip


def measured(state, inputs, values, training=True, total=alone):
    return state.measure(inputs, values, total, training=training)


@pytest.mark.parametrize("name", ["bco", "bco_pair"])
def test_the_shift_after_the_first_batch_is_the_worked_one(name):
    found = measured(RunningShift(), inputs_of(name), SHIFT)
    assert found["reward_shift"].item() == pytest.approx(-0.0125, abs=1e-12)


@pytest.mark.parametrize(("rule", "expected"), [("half_sum", -0.05), ("pooled", -1 / 30), ("none", 0.0)])
def test_the_shift_of_unbalanced_classes_follows_its_rule(rule, expected):
    """Rewards 0.05 and -0.05 of desirable completions, -0.1 of an undesirable one."""
    found = measured(RunningShift(), unpaired([0.5, -0.5], [-1.0]), SHIFT | {"delta_rule": rule})
    assert found["reward_shift"].item() == pytest.approx(expected, abs=1e-12)


def test_the_shift_counts_every_completion_seen_so_far_once():
    state = RunningShift()
    measured(state, unpaired([2.0], [-1.0]), SHIFT)
    found = measured(state, unpaired([4.0, 6.0], [-3.0]), SHIFT)
    assert found["reward_shift"].item() == pytest.approx(0.1 * (4.0 - 2.0) / 2, abs=1e-12)


def test_as_long_as_one_class_was_not_seen_the_shift_is_the_mean_of_the_other():
    state = RunningShift()
    first = measured(state, unpaired([2.0, 4.0], []), SHIFT)["reward_shift"]
    assert first.item() == pytest.approx(0.1 * 3, abs=1e-12)
    second = measured(state, unpaired([], [-5.0]), SHIFT)["reward_shift"]
    assert second.item() == pytest.approx(0.1 * (3 - 5) / 2, abs=1e-12)


def test_kto_measures_the_worked_kl():
    mismatched = {
        "policy_mismatched": row(-25.0, -31.0, -18.0), "reference_mismatched": row(-26.0, -30.5, -19.0)
    }  # fmt: skip
    assert measured(MismatchedKL(), mismatched, {})["kl"].item() == pytest.approx(0.5, abs=1e-12)


def test_a_negative_kl_is_averaged_first_and_left_to_the_loss_to_clamp():
    mismatched = {"policy_mismatched": row(-3.0, -3.0), "reference_mismatched": row(-1.0, -2.0)}
    assert measured(MismatchedKL(), mismatched, {})["kl"].item() == pytest.approx(-1.5, abs=1e-12)


def test_the_running_margin_begins_at_0_and_has_the_worked_first_step():
    state = RunningMargin()
    found = measured(state, inputs_of("beta_dpo"), MARGIN)
    assert found["batch_margin"].item() == pytest.approx(0.75, abs=1e-12)
    assert found["running_margin"].item() == pytest.approx(0.075, abs=1e-12)
    assert found["kept"].tolist() == [1, 1, 1]
    margins = torch.tensor([1.5, -1.0, 1.75]).double()
    assert state.spread == pytest.approx(0.1 * margins.std().item(), abs=1e-12)
    second = measured(state, paired([2.0, 4.0]), MARGIN)
    assert second["running_margin"].item() == pytest.approx(0.9 * 0.075 + 0.1 * 3.0, abs=1e-12)


def test_the_filter_keeps_the_share_and_seldom_pairs_far_from_the_mean():
    state = RunningMargin()
    state.mean, state.spread = 1.0, 0.5
    margins = [1.0, 0.8, 1.2, 0.9, 1.1, 1.3, 0.7, 9.0]
    counts = torch.zeros(8)
    for _ in range(50):
        kept = measured(state, paired(margins), {"decay": 1 - 1e-9, "keep": 0.5})["kept"]
        assert kept.sum() == 4 and set(kept.tolist()) == {0.0, 1.0}
        counts += kept
    assert counts[-1] == 0
    assert counts[:7].min() > 5


def test_a_share_that_rounds_to_no_pair_keeps_one():
    state = RunningMargin()
    state.mean, state.spread = 0.0, 1.0
    assert measured(state, paired([1.0, 2.0, 3.0]), MARGIN | {"keep": 0.1})["kept"].sum() == 1


def test_pairs_very_far_from_the_mean_can_still_be_drawn():
    state = RunningMargin()
    state.mean, state.spread = 0.0, 1e-3
    kept = measured(state, paired([50.0, 60.0]), {"decay": 1 - 1e-9, "keep": 0.5})["kept"]
    assert kept.tolist() == [1.0, 0.0]


STATES = {"bco": RunningShift, "bco_pair": RunningShift, "beta_dpo": RunningMargin}


def batch(name, seed):
    generator = torch.Generator().manual_seed(seed)
    values = (3 * torch.randn(6, generator=generator, dtype=torch.float64)).tolist()
    return unpaired(values[:3], values[3:]) if name == "bco" else paired(values)


def settings(name):
    method = METHODS[name]
    return method.check_params({"keep": 0.5} if name == "beta_dpo" else {})


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", STATES)
def test_evaluation_reads_the_state_and_changes_nothing(name):
    state, untouched = STATES[name](), STATES[name]()
    for seed in range(3):
        measured(state, batch(name, seed), settings(name))
        measured(untouched, batch(name, seed), settings(name))
    before = state.state_dict()
    evaluated = measured(state, batch(name, 7), settings(name), training=False)
    assert state.state_dict() == before
    assert set(evaluated) == set(state.provides)
    if name == "beta_dpo":
        assert evaluated["kept"].tolist() == [1.0] * 6
    after = [measured(s, batch(name, 8), settings(name)) for s in (state, untouched)]
    assert same(*after)


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_was_written_and_read_goes_on_to_the_last_bit(name):
    state, resumed = STATES[name](), STATES[name]()
    for seed in range(5):
        measured(state, batch(name, seed), settings(name))
    resumed.load_state_dict(json.loads(json.dumps(state.state_dict())))
    for seed in range(5, 12):
        found = [measured(s, batch(name, seed), settings(name)) for s in (state, resumed)]
        assert same(*found)
    assert resumed.state_dict() == state.state_dict()


@pytest.mark.parametrize("name", ["bco", "beta_dpo", "kto"])
def test_two_processes_measure_what_one_with_all_examples_does(name):
    """Each process has a share, and the sums that the other would add are added by hand."""
    method = METHODS[name]
    values = method.check_params({})
    if name == "kto":
        whole = {"policy_mismatched": row(1, 2, 3, 4, 5, 6), "reference_mismatched": torch.zeros(6).double()}
        parts = [{key: value[rows] for key, value in whole.items()} for rows in ([0, 1], [2, 3, 4, 5])]
    else:
        whole = batch(name, 3)
        parts = [{key: value[rows] for key, value in whole.items()} for rows in ([0, 3], [1, 2, 4, 5])]
    sums = []
    for part in parts:
        measured(method.state(), part, values, total=lambda found: sums.append(found) or found)
    expected = measured(method.state(), whole, values)
    for index, part in enumerate(parts):
        other = sums[1 - index]
        found = measured(method.state(), part, values, total=lambda own, other=other: own + other)
        for key in set(expected) - {"kept"}:
            assert found[key].item() == pytest.approx(expected[key].item(), rel=1e-12), key


@pytest.mark.parametrize("name", ["kto", *STATES])
def test_no_gradient_flows_through_what_a_state_provides(name):
    policies = {"policy", "policy_chosen", "policy_mismatched"}
    inputs = {} if name == "kto" else batch(name, 1)
    inputs |= {"policy_mismatched": row(1, 2), "reference_mismatched": row(0, 0)} if name == "kto" else {}
    inputs = {key: v.requires_grad_() if key in policies else v for key, v in inputs.items()}
    found = measured(METHODS[name].state(), inputs, settings(name))
    assert not any(value.requires_grad for value in found.values())


def test_a_mixture_gives_its_parts_state_its_own_names_and_options():
    method = resolve("mix(dpo, bco_pair)")
    values = method.check_params({"bco_pair_beta": 0.5, "bco_pair_delta_rule": "pooled"})
    state = method.state()
    found = measured(state, inputs_of("bco_pair"), values)
    assert found["reward_shift"].item() == pytest.approx(5 * -0.0125, abs=1e-12)
    assert "bco_pair_delta_rule" in method.options and "delta_rule" not in method.options


def test_losses_that_remember_nothing_have_a_state_of_nothing():
    state = LossState()
    assert measured(state, batch("bco", 0), {}) == {} and state.state_dict() == {}
