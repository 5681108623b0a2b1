"""Losses of pairs with a reference against TRL's DPO trainer: loss, gradients and log of one step."""

import pytest
from trl_side import REWARDS, assert_same_steps, loss_types, our_steps, their_dpo, trl, unless_gone

BETA = {"beta": 0.3}

CASES = {
    "sigmoid": ("dpo", BETA, BETA),
    "hinge": ("slic_dpo", {"beta": 3.0}, {"beta": 3.0}),
    "ipo": ("ipo", {"tau": 0.3}, BETA),
    "exo_pair": ("exo", {"beta": 0.3, "eps": 0.01}, {"beta": 0.3, "label_smoothing": 0.01}),
    "nca_pair": ("nca", BETA, BETA),
    "robust": ("robust_dpo", {"beta": 0.3, "eps": 0.1}, {"beta": 0.3, "label_smoothing": 0.1}),
    "bco_pair": ("bco_pair", {"beta": 0.3, "delta_rule": "none"}, BETA),
    "sppo_hard": ("sppo", BETA, BETA),
    "aot": ("aot", {"beta": 0.3, "eps": 0.1}, {"beta": 0.3, "label_smoothing": 0.1}),
    "aot_unpaired": ("aot_unpaired", {"beta": 0.3, "eps": 0.1}, {"beta": 0.3, "label_smoothing": 0.1}),
    "apo_zero": ("apo_zero", BETA, BETA),
    "apo_down": ("apo_down", BETA, BETA),
    "discopop": ("discopop", {"beta": 0.1, "temperature": 0.1}, {"beta": 0.1, "discopop_tau": 0.1}),
    "sft": ("sft", {}, BETA),
    "sigmoid_norm": ("ln_dpo", {"beta": 2.0}, {"beta": 2.0}),
}
"""TRL's loss type -> our method, our hyperparameters, TRL's options."""

LOGPS = ("logps/chosen", "logps/rejected")
LOGGED = {"sft": (), "ipo": LOGPS, "sigmoid_norm": LOGPS}
"""What the two log alike where that is not all: TRL logs summed rewards for losses that average, too."""


def test_every_loss_type_of_dpo_trainer_is_compared():
    assert loss_types(trl.DPOTrainer) <= set(CASES)


@pytest.mark.parametrize("loss_type", CASES)
def test_a_step_of_a_loss_is_that_of_dpo_trainer(tmp_path, loss_type):
    unless_gone(loss_type, trl.DPOTrainer)
    method, params, options = CASES[loss_type]
    theirs = their_dpo(tmp_path, loss_type=loss_type, **options)
    ours = our_steps(tmp_path, method, params)
    assert_same_steps(ours, theirs, LOGGED.get(loss_type, (*REWARDS, *LOGPS)))


def test_trl_logs_summed_rewards_where_ipo_averages(tmp_path):
    theirs = their_dpo(tmp_path, loss_type="ipo", beta=0.3).log
    ours = our_steps(tmp_path, "ipo", {"tau": 0.3}).log
    for side in ("chosen", "rejected"):
        assert 0.3 * ours[f"logratio/{side}"] == pytest.approx(theirs[f"rewards/{side}"], abs=1e-5)
        assert 0.3 * ours[f"logratio_mean/{side}"] == pytest.approx(ours[f"rewards/{side}"], abs=1e-5)


def test_accuracies_count_the_same_pairs(tmp_path):
    theirs, ours = their_dpo(tmp_path, beta=0.3).log, our_steps(tmp_path, "dpo", BETA).log
    assert 0 < ours["rewards/accuracies"] == theirs["rewards/accuracies"] < 1


@pytest.mark.parametrize(
    ("divergence", "options"),
    [
        ("reverse_kl", {"f_divergence_type": "reverse_kl"}),
        ("forward_kl", {"f_divergence_type": "forward_kl"}),
        ("js", {"f_divergence_type": "js_divergence"}),
        ("alpha", {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.4}),
    ],
)
def test_divergences_are_those_of_dpo_trainer(tmp_path, divergence, options):
    theirs = their_dpo(tmp_path, beta=0.1, **options)
    ours = our_steps(tmp_path, "f_dpo", {"beta": 0.1, "divergence": divergence, "alpha": 0.4})
    assert_same_steps(ours, theirs, LOGPS)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ld_dpo_is_the_ld_alpha_of_dpo_trainer(tmp_path, alpha):
    theirs = their_dpo(tmp_path, beta=0.3, ld_alpha=alpha)
    ours = our_steps(tmp_path, "ld_dpo", {"beta": 0.3, "alpha": alpha})
    assert_same_steps(ours, theirs, names=())
