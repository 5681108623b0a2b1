import pytest
from worked_inputs import inputs_of

from po.methods import METHODS


def figures(name, **params):
    method = METHODS[name]
    found = method.diagnostics(inputs_of(name, params), method.check_params(params))
    assert not any(value.requires_grad for value in found.values())
    return {key: value.tolist() for key, value in found.items()}


def test_orpo_shows_its_odds_under_trls_names():
    found = figures("orpo")
    assert found["log_odds_ratio"] == pytest.approx([-0.71746092, -0.70332189, -0.70817849], abs=1e-8)
    assert all(value < 0 for value in found["log_odds_chosen"])


def test_soft_dpo_shows_its_labels_and_which_the_metric_turns_round():
    found = figures("soft_dpo", scale=1)
    assert found["label_probability"] == pytest.approx([0.53742985, 0.49500017, 0.57444252], abs=1e-8)
    assert found["labels_reversed"] == [0, 1, 0]


def test_chi_po_shows_which_pairs_have_lost_their_gradient():
    # the leads are 0.28, -0.20 and 0.35 at beta 0.1
    assert figures("chi_po", beta=0.1, clip=1)["clipped"] == [0, 0, 0]
    assert figures("chi_po", beta=0.1, clip=0.12)["clipped"] == [1, 0, 1]


@pytest.mark.parametrize("name", ["odpo", "rebel"])
def test_losses_on_the_gap_of_a_metric_show_it(name):
    found = figures(name)
    assert found["score_gap"] == pytest.approx([0.15, -0.02, 0.3])
    assert found["gaps_not_positive"] == [0, 1, 0]


def test_dpop_shows_which_chosen_completions_fell_below_the_reference():
    assert figures("dpop")["chosen_below_reference"] == [0, 1, 0]


def test_mallows_dpo_shows_the_entropy_that_scales_it():
    assert figures("mallows_dpo")["reference_entropy"] == pytest.approx([0.2, 0.35, 0.1])
