import doctest
import importlib
import math
import pkgutil

import pytest
import torch
from worked_inputs import AVERAGED, CHOSEN_LENGTH, CHOSEN_NLL, SUMMED, inputs_of, loss_of
from worked_values import MEANS, WORKED

import po.losses
from po.losses import anchored, averaged, divergence, margins, reference_free, stable, transport
from po.losses.exponents import capped
from po.methods import METHODS

MODULES = [
    importlib.import_module(module.name) for module in pkgutil.iter_modules(po.losses.__path__, "po.losses.")
]


@pytest.mark.parametrize("worked", WORKED, ids=str)
def test_losses_have_their_worked_values_in_float64(worked):
    losses = loss_of(worked.method, worked.params, **worked.inputs)
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx(worked.losses, abs=1e-8, rel=0)


@pytest.mark.parametrize("worked", WORKED, ids=str)
def test_losses_keep_their_worked_values_in_float32(worked):
    losses = loss_of(worked.method, worked.params, dtype=torch.float32, **worked.inputs)
    assert losses.dtype == torch.float32
    # A hinge and simper are differences of numbers near 1, whose rounding stays where they are small.
    assert losses.tolist() == pytest.approx(worked.losses, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize(("name", "params", "mean"), MEANS)
def test_defaults_give_the_worked_means(name, params, mean):
    assert loss_of(name, params).mean().item() == pytest.approx(mean, abs=1e-8, rel=0)


def test_every_method_has_a_worked_value():
    assert {worked.method for worked in WORKED} == set(METHODS)


def test_one_likelihood_for_the_whole_batch_is_added_to_every_pair():
    inputs = inputs_of("cpo") | {"chosen_nll": CHOSEN_NLL["token_batch"]}
    assert inputs["chosen_nll"].ndim == 0
    torch.testing.assert_close(METHODS["cpo"].loss(**inputs), loss_of("cpo"))


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
    averaged_losses = loss_of("orpo", {"odds_weight": 1.0}) - CHOSEN_NLL["token_batch"]
    assert (summed - averaged_losses).abs().min() > 0.5
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
    pair = torch.cat([lead, zero]), torch.zeros(2, dtype=torch.float64), torch.tensor([True, False])
    losses = [
        margins.logistic(lead, eps=eps),
        anchored.dpo_gamma(lead, zero, zero, zero, beta=1.0, gamma=0.0, eps=eps),
        reference_free.cpo(lead, zero, beta=1.0, eps=eps, nll_weight=0),
        reference_free.simpo(lead, zero, beta=1.0, gamma=0.0, eps=eps),
        reference_free.cpo_simpo(lead, zero, zero, beta=1.0, gamma=0.0, eps=eps),
        transport.aot(lead, zero, zero, zero, beta=1.0, eps=eps),
        transport.aot_unpaired(*pair, beta=1.0, eps=eps),
        METHODS["cdpo"].loss(lead, zero, zero, zero, beta=1.0, eps=eps),
    ]
    assert torch.cat(losses).tolist() == pytest.approx([expected] * len(losses), abs=1e-12)


def test_the_metric_turns_a_pair_round_where_it_disagrees_with_the_label():
    inputs, zero = inputs_of("soft_dpo"), torch.zeros(3, dtype=torch.float64)
    policy = zero.clone().requires_grad_()
    METHODS["soft_dpo"].loss(
        policy, zero, zero, zero, inputs["chosen_score"], inputs["rejected_score"]
    ).sum().backward()
    assert policy.grad.sign().tolist() == [-1, 1, -1]


@pytest.mark.parametrize(
    ("nonpositive", "transform", "expected"),
    # Scores 0.8 and 0.7, 0.7 and 0.7, 0.7 and 0.8; no lead, so that the loss is log(1 + exp(offset)).
    [
        ("drop", "log", [math.log(1.1), 0.0, 0.0]),
        ("zero", "log", [math.log(1.1), math.log(2), math.log(2)]),
        ("drop", "identity", [math.log1p(math.exp(0.1)), 0.0, 0.0]),
        ("zero", "identity", [math.log1p(math.exp(0.1)), math.log(2), math.log(2)]),
        ("signed", "identity", [math.log1p(math.exp(0.1)), math.log(2), math.log1p(math.exp(-0.1))]),
    ],
)
def test_odpo_treats_gaps_that_are_not_positive_as_asked(nonpositive, transform, expected):
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([0.8, 0.7, 0.7]).double(), torch.tensor([0.7, 0.7, 0.8]).double()
    losses = METHODS["odpo"].loss(
        zero, zero * 1, zero * 1, zero * 1, *scores, transform=transform, nonpositive=nonpositive
    )
    assert losses.tolist() == pytest.approx(expected, abs=1e-7)


def test_dropped_pairs_of_beta_dpo_cost_nothing_and_the_mean_is_that_of_the_kept():
    kept = torch.tensor([1.0, 0.0, 1.0]).double()
    losses, all_kept = loss_of("beta_dpo", kept=kept), loss_of("beta_dpo")
    assert losses[1].item() == 0
    assert losses.mean().item() == pytest.approx(all_kept[[0, 2]].mean().item(), abs=1e-12)
    assert loss_of("beta_dpo", kept=torch.zeros(3).double()).tolist() == [0, 0, 0]


def test_the_beta_of_beta_dpo_follows_the_batch_down_to_its_minimum():
    # 0.1 (1 + 0.6 (0.75 - 20)) is far below 0; the lead of pair 1 is 1.5.
    losses = loss_of("beta_dpo", {"min_beta": 0.02}, running_margin=torch.tensor(20.0).double())
    assert losses[0].item() == pytest.approx(math.log1p(math.exp(-0.03)), abs=1e-12)


def test_shifting_the_reference_point_of_kto_stops_at_zero():
    below, at = torch.tensor(-3.0).double(), torch.tensor(0.0).double()
    assert torch.equal(loss_of("kto", kl=below), loss_of("kto", kl=at))
    assert torch.equal(loss_of("kto", kl=at), loss_of("apo_zero_unpaired"))


def test_the_two_kinds_of_completions_have_their_own_weights_in_kto():
    losses = loss_of("kto", {"desirable_weight": 2, "undesirable_weight": 3}) / loss_of("kto")
    assert losses.tolist() == pytest.approx([2, 2, 2, 3, 3, 3])


def test_unpaired_transport_fills_the_rarer_kind_up_by_interpolation():
    ratio = torch.tensor([4.0, 1.0, 0.5, 3.0, 2.0]).double()  # two desirable: 1, 4 -> 1, 2.5, 4
    desirable = torch.tensor([True, True, False, False, False])
    losses = transport.aot_unpaired(ratio, torch.zeros(5).double(), desirable, beta=1.0)
    leads = [1 - 0.5, 2.5 - 2, 4 - 3]
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-lead)) for lead in leads])
    mirrored = transport.aot_unpaired(-ratio, torch.zeros(5).double(), ~desirable, beta=1.0)
    assert mirrored.flip(0).tolist() == pytest.approx(losses.tolist())
    one = transport.aot_unpaired(ratio[1:], torch.zeros(4).double(), desirable[1:], beta=1.0)
    assert one.tolist() == pytest.approx([math.log1p(math.exp(-lead)) for lead in (0.5, -1, -2)])


@pytest.mark.parametrize("kind", [True, False])
def test_unpaired_transport_without_a_counterpart_is_zero_with_a_gradient_of_zero(kind):
    policy = torch.tensor([1.0, -2.0], requires_grad=True)
    losses = transport.aot_unpaired(policy, torch.zeros(2), torch.tensor([kind, kind]))
    losses.sum().backward()
    assert losses.tolist() == [0, 0]
    assert policy.grad.tolist() == [0, 0]


@pytest.mark.parametrize("order", [0.0, 1e-6, 0.5, 1 - 1e-6, 1.0])
def test_the_alpha_divergence_passes_from_the_forward_to_the_reverse_kl(order):
    inputs = inputs_of("f_dpo")
    between = divergence.f_dpo(**inputs, divergence="alpha", alpha=order)
    ends = [divergence.f_dpo(**inputs, divergence=end) for end in ("forward_kl", "reverse_kl")]
    nearest = {0.0: ends[0], 1e-6: ends[0], 1 - 1e-6: ends[1], 1.0: ends[1]}.get(order)
    if nearest is None:
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        assert ((low < between) & (between < high)).all()
    else:
        assert between.tolist() == pytest.approx(nearest.tolist(), abs=1e-6)


def test_the_reward_of_alphapo_is_exact_for_a_small_bend():
    chosen, rejected = AVERAGED["policy_chosen"], AVERAGED["policy_rejected"]
    nearly_straight = averaged.alphapo(chosen, rejected, alpha=1e-12)
    torch.testing.assert_close(
        nearly_straight, averaged.alphapo(chosen, rejected, alpha=0), atol=1e-11, rtol=0
    )


@pytest.mark.parametrize("x", [-1e-12, -1e-6, -0.1, -math.log(2), -0.7, -5.0, -700.0])
def test_log1mexp_is_exact_on_both_sides_of_its_switch(x):
    # log(1 - e^x) = log(-x) + x/2 + O(x^2) near 0, where Python's own difference has lost its digits.
    expected = math.log(-x) + x / 2 if x > -1e-5 else math.log1p(-math.exp(x))
    assert stable.log1mexp(torch.tensor([x], dtype=torch.float64)).item() == pytest.approx(
        expected, rel=1e-12, abs=1e-300
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_exponential_of_a_capped_exponent_is_finite(dtype):
    exponent = capped(torch.tensor([-1e4, 3.0, 1e4], dtype=dtype))
    assert exponent[:2].tolist() == [-1e4 if dtype != torch.bfloat16 else -9984.0, 3.0]
    assert torch.isfinite(exponent.exp()).all()


def test_the_token_batch_nll_is_the_mean_over_all_tokens_of_the_batch():
    assert CHOSEN_NLL["token_batch"].item() == 39.75 / 32
    assert CHOSEN_LENGTH.sum().item() == 32


@pytest.mark.parametrize("module", [stable, *MODULES], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0
