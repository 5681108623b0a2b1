import doctest
import math

import pytest
import torch
from worked_inputs import AVERAGED, CHOSEN_LENGTH, CHOSEN_NLL, SUMMED, loss_of

from po import stable
from po.losses import anchored, margins, reference_free, supervised
from po.methods import METHODS

# Method, parameters, one loss per pair. Worked from the formulas with plain Python floats.
WORKED = [
    ("dpo", {"beta": 0.1}, [0.62095705, 0.74439666, 0.60947043]),
    ("dpo", {"beta": 0.1, "margin": 0.5}, [0.64439666, 0.77095705, 0.63259904]),
    ("dpo", {"beta": 0.1, "reference_free": True}, [0.59813887, 0.77095705, 0.58696200]),
    ("dpo_gamma", {"beta": 0.1, "gamma": 0.5}, [0.88338216, 1.03748795, 0.86879260]),
    ("slic_dpo", {"beta": 0.1, "delta": 1.0}, [0.85, 1.10, 0.825]),
    ("slic_dpo", {"beta": 0.1, "delta": 0.1}, [0.0, 0.20, 0.0]),
    ("ipo", {"tau": 0.1}, [23.68444444, 25.65000434, 22.5625]),
    ("ipo", {"tau": 0.1, "length_norm": False}, [12.25, 36.0, 10.5625]),
    ("cpo", {"beta": 0.1, "nll_weight": 0}, [0.59813887, 0.77095705, 0.58696200]),
    ("cpo", {"beta": 0.1, "nll_weight": 1}, [1.84032637, 2.01314455, 1.82914950]),
    ("slic", {"beta": 0.1, "delta": 1, "nll_weight": 0}, [0.80, 1.15, 0.775]),
    ("slic", {"beta": 0.1, "delta": 1, "nll_weight": 1}, [2.0421875, 2.3921875, 2.0171875]),
    ("slic", {"beta": 1, "delta": 1, "nll_weight": 0.1, "nll_reduction": "seq_sum"}, [1.20, 4.55, 0.725]),
    ("simpo", {"beta": 2, "gamma": 0.5}, [1.01609358, 0.99233177, 1.00021608]),
    ("simpo", {"beta": 0.1, "gamma": 0.5}, [0.97615315, 0.97498499, 0.97537428]),
    ("simpo", {"beta": 2.5, "gamma_beta_ratio": 0.55}, [1.66747829, 1.62961949, 1.64220110]),
    ("cpo_simpo", {"beta": 2, "gamma": 0.5, "nll_weight": 1}, [2.25828108, 2.23451927, 2.24240358]),
    ("orpo", {"odds_weight": 0.1}, [1.31393359, 1.31251969, 1.31300535]),
    ("orpo", {"odds_weight": 0.1, "nll_reduction": "seq_mean"}, [1.27174609, 1.35158219, 1.27915118]),
    ("sft", {"nll_reduction": "seq_mean"}, [1.2, 1.28125, 1.20833333]),
    ("sft", {"nll_reduction": "seq_sum"}, [12.0, 20.5, 7.25]),
]
NAMES = [f"{name} {params}" for name, params, _ in WORKED]


@pytest.mark.parametrize(("name", "params", "expected"), WORKED, ids=NAMES)
def test_losses_have_their_worked_values_in_float64(name, params, expected):
    losses = loss_of(name, params)
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx(expected, abs=1e-8, rel=0)


@pytest.mark.parametrize(("name", "params", "expected"), WORKED, ids=NAMES)
def test_losses_keep_their_worked_values_in_float32(name, params, expected):
    losses = loss_of(name, params, dtype=torch.float32)
    assert losses.dtype == torch.float32
    # The hinge is a difference of numbers near 1, so its rounding is that of 1 even where it is small.
    assert losses.tolist() == pytest.approx(expected, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "params", "mean"),
    [
        ("dpo", {}, 0.65827471),
        ("dpo", {"margin": 0.5}, 0.68265091),
        ("dpo_gamma", {}, 0.92988757),
        ("slic_dpo", {}, 0.925),
        ("ipo", {}, 23.96564959),
        ("ipo", {"length_norm": False}, 19.60416667),
        ("cpo", {}, 1.89420681),
        ("slic", {}, 2.15052083),
        ("simpo", {}, 1.00288048),
        ("simpo", {"beta": 2.5, "gamma_beta_ratio": 0.55}, 1.64643296),
        ("cpo_simpo", {}, 2.24506798),
        ("orpo", {}, 1.31315288),
        ("orpo", {"nll_reduction": "seq_mean"}, 1.30082649),
        ("sft", {}, 1.24218750),
    ],
)
def test_defaults_give_the_worked_means(name, params, mean):
    assert loss_of(name, params).mean().item() == pytest.approx(mean, abs=1e-8, rel=0)


def test_every_method_has_a_worked_value():
    assert {name for name, _, _ in WORKED} == set(METHODS)


def test_the_odds_ratio_term_of_orpo_alone_has_its_worked_values():
    losses = METHODS["orpo"].loss(
        AVERAGED["policy_chosen"],
        AVERAGED["policy_rejected"],
        torch.zeros(3, dtype=torch.float64),
        odds_weight=1.0,
    )
    assert losses.tolist() == pytest.approx([0.71746092, 0.70332189, 0.70817849], abs=1e-8, rel=0)


def test_orpo_on_summed_log_probs_is_another_loss():
    summed = METHODS["orpo"].loss(
        SUMMED["policy_chosen"],
        SUMMED["policy_rejected"],
        torch.zeros(3, dtype=torch.float64),
        odds_weight=1.0,
    )
    assert summed.tolist() == pytest.approx([0.12692738, 1.70141328, 0.10014597], abs=1e-8, rel=0)
    averaged = loss_of("orpo", {"odds_weight": 1.0}) - CHOSEN_NLL["token_batch"]
    assert (summed - averaged).abs().min() > 0.5
    assert METHODS["orpo"].logps == "mean"


def test_simpo_with_the_reference_dropped_from_dpo_gamma_and_sums_is_another_loss():
    zero = torch.zeros(3, dtype=torch.float64)
    misconfigured = anchored.dpo_gamma(SUMMED["policy_chosen"], SUMMED["policy_rejected"], zero, zero)
    assert misconfigured.tolist() == pytest.approx([0.85435524, 1.07005534, 0.84007067], abs=1e-8, rel=0)
    assert (misconfigured - loss_of("simpo", {"beta": 0.1, "gamma": 0.5})).abs().min() > 0.05


@pytest.mark.parametrize(
    ("eps", "expected"),
    # A lead of log 3: sigma(log 3) = 3/4, sigma(-log 3) = 1/4.
    [(0.0, math.log(4 / 3)), (0.25, 0.75 * math.log(4 / 3) + 0.25 * math.log(4))],
)
def test_label_noise_mixes_the_losses_of_both_orders(eps, expected):
    lead, zero = torch.tensor([math.log(3)], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert margins.logistic(lead, eps=eps).item() == pytest.approx(expected, abs=1e-12)
    assert anchored.dpo_gamma(lead, zero, zero, zero, beta=1.0, gamma=0.0, eps=eps).item() == pytest.approx(
        expected
    )
    assert reference_free.cpo(lead, zero, beta=1.0, eps=eps, nll_weight=0).item() == pytest.approx(expected)
    assert reference_free.simpo(lead, zero, beta=1.0, gamma=0.0, eps=eps).item() == pytest.approx(expected)
    assert reference_free.cpo_simpo(lead, zero, zero, beta=1.0, gamma=0.0, eps=eps).item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("x", [-1e-12, -1e-6, -0.1, -math.log(2), -0.7, -5.0, -700.0])
def test_log1mexp_is_exact_on_both_sides_of_its_switch(x):
    # log(1 - e^x) = log(-x) + x/2 + O(x^2) near 0, where Python's own difference has lost its digits.
    expected = math.log(-x) + x / 2 if x > -1e-5 else math.log1p(-math.exp(x))
    assert stable.log1mexp(torch.tensor([x], dtype=torch.float64)).item() == pytest.approx(
        expected, rel=1e-12, abs=1e-300
    )


def test_the_token_batch_nll_is_the_mean_over_all_tokens_of_the_batch():
    assert CHOSEN_NLL["token_batch"].item() == 39.75 / 32
    assert CHOSEN_LENGTH.sum().item() == 32


@pytest.mark.parametrize("module", [stable, anchored, reference_free, supervised, margins])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0
