"""Losses of pairs without a reference against TRL's CPO and ORPO trainers: loss, gradients, log of a step."""

import pytest
from trl_side import (
    REWARDS,
    assert_same_steps,
    loss_types,
    our_steps,
    rows_of,
    steps_of,
    their_trainer,
    unless_gone,
)

cpo = pytest.importorskip("trl.experimental.cpo")

SIMPO = {"beta": 2.0, "gamma": 0.4}
CASES = {
    "sigmoid": (
        "cpo",
        {"beta": 0.3, "eps": 0.1, "nll_weight": 0.7},
        {"beta": 0.3, "label_smoothing": 0.1, "cpo_alpha": 0.7},
    ),
    "hinge": ("slic", {"beta": 0.3, "nll_weight": 0.7}, {"beta": 0.3, "cpo_alpha": 0.7}),
    "ipo": ("cpo_ipo", {"tau": 0.3, "nll_weight": 0.7}, {"beta": 0.3, "cpo_alpha": 0.7}),
    "simpo": ("simpo", {**SIMPO, "eps": 0.1}, {"label_smoothing": 0.1, "cpo_alpha": 0.0}),
    "alphapo": ("alphapo", {**SIMPO, "alpha": 0.3}, {"alpha": 0.3}),
}
"""TRL's loss type -> our method, our hyperparameters, TRL's options."""


def their_cpo(folder, **options):
    options = {"beta": SIMPO["beta"], "simpo_gamma": SIMPO["gamma"], **options}
    return steps_of(their_trainer(cpo.CPOTrainer, cpo.CPOConfig, folder, **options))


def test_every_loss_type_of_cpo_trainer_is_compared():
    assert loss_types(cpo.CPOTrainer, cpo.CPOConfig) <= set(CASES)


@pytest.mark.parametrize("loss_type", CASES)
def test_a_step_of_a_loss_is_that_of_cpo_trainer(tmp_path, loss_type):
    unless_gone(loss_type, cpo.CPOTrainer, cpo.CPOConfig)
    method, params, options = CASES[loss_type]
    theirs = their_cpo(tmp_path, loss_type=loss_type, **options)
    ours = our_steps(tmp_path, method, params, rows_of(theirs))
    # Its logps are averages where the loss averages; the rewards of alphapo are bent there and plain here.
    assert_same_steps(ours, theirs, () if loss_type == "alphapo" else REWARDS)
    if params.get("nll_weight"):
        assert ours.log["nll_loss"] == pytest.approx(theirs.log["nll_loss"], rel=1e-5)


def test_cpo_simpo_is_simpo_with_the_weight_that_trl_gives_the_likelihood_by_default(tmp_path):
    theirs = their_cpo(tmp_path, loss_type="simpo")
    assert_same_steps(our_steps(tmp_path, "cpo_simpo", {**SIMPO, "nll_weight": 1.0}, rows_of(theirs)), theirs)


def test_alphapo_with_a_likelihood_term_is_a_mixture(tmp_path):
    theirs = their_cpo(tmp_path, loss_type="simpo", alpha=0.3, cpo_alpha=0.7)
    params = {"alphapo_beta": 2.0, "alphapo_gamma": 0.4, "alphapo_alpha": 0.3, "sft_weight": 0.7}
    assert_same_steps(our_steps(tmp_path, "mix(alphapo, sft)", params, rows_of(theirs)), theirs, ())


def test_orpo_counts_the_prompt_where_trl_does(tmp_path):
    orpo = pytest.importorskip("trl.experimental.orpo")
    theirs = steps_of(their_trainer(orpo.ORPOTrainer, orpo.ORPOConfig, tmp_path, beta=0.5))
    rows = rows_of(theirs)
    ours = our_steps(tmp_path, "orpo", {"odds_weight": 0.5, "nll_scope": "prompt_and_completion"}, rows)
    assert_same_steps(ours, theirs)
    assert ours.log["nll_loss"] == pytest.approx(theirs.log["nll_loss"], rel=1e-5)
    without_prompt = our_steps(tmp_path, "orpo", {"odds_weight": 0.5}, rows)
    assert abs(without_prompt.loss - theirs.loss) > 1e-3
