"""Supervised fine-tuning, and methods of pairs without a reference."""

from collections.abc import Mapping

from po.losses import averaged, displacement, reference_free, supervised
from po.methods import diagnostics
from po.methods.hyperparameters import Choice, ParamValue, Range
from po.methods.method import Method
from po.methods.ranges import BETA, BETA_PER_TOKEN, DELTA, EPS, GAMMA, TAU, WEIGHT, advise_on_target
from po.methods.rewards import from_log_prob, from_probability

NLL_WEIGHT_ABOVE_0 = Range(
    0, float("inf"), "weight", low_open=True, hint="With nll_weight 0 the method is simpo."
)
BEND = Range(-10, 10, "1 per nat")
C1 = Range(0, float("inf"), "factor", low_open=True)
C2 = Range(0, float("inf"), "1 per nat per token")
TAU_MIN = Range(-1, 1, "share", hint="With -1 there is no floor.")
DETACH_TAU = Choice((False, True), "no gradient through tau")


def _simpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    target = float(values["gamma"]) / float(values["beta"])
    return advise_on_target(target, "Use a larger beta (2 to 10) or a smaller gamma.")


def _cpo_ipo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    target = 1 / (2 * float(values["tau"]))
    return advise_on_target(target, "Averaged log-probabilities want a tau of 0.5 to 10.")


def _arpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if float(values["tau_min"]) >= 0 or float(values["c1"]) >= 1:
        return ()
    return (
        "Where both completions are about equally likely per token, tau is negative with c1 below 1: the "
        "rejected one is then made likelier. Take c1 1, or tau_min 0.",
    )


ENTRIES = (
    Method(
        name="sft",
        loss=supervised.sft,
        logps="mean",
        formula="NLL",
        paper="maximum likelihood",
    ),
    Method(
        name="cpo",
        loss=reference_free.cpo,
        logps="sum",
        ranges={"beta": BETA, "eps": EPS, "nll_weight": WEIGHT},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z) + nll_weight·NLL, z = beta·R",
        paper="Xu et al. 2024, arXiv:2401.08417",
        rewards=from_log_prob("beta"),
    ),
    Method(
        name="slic",
        loss=reference_free.slic,
        logps="sum",
        ranges={"beta": BETA, "delta": DELTA, "nll_weight": WEIGHT},
        formula="max(0, delta - beta·R) + nll_weight·NLL",
        paper="Zhao et al. 2023, arXiv:2305.10425",
        rewards=from_log_prob("beta"),
        parameter_aliases={"lam": "nll_weight", "lambda": "nll_weight"},
    ),
    Method(
        name="cpo_ipo",
        loss=averaged.cpo_ipo,
        logps="mean",
        ranges={"tau": TAU, "nll_weight": WEIGHT},
        formula="(R - 1/(2·tau))² + nll_weight·NLL",
        paper="TRL's CPO trainer, after arXiv:2310.12036",
        rewards=from_log_prob("tau"),
        parameter_aliases={"beta": "tau"},
        advice=_cpo_ipo_advice,
    ),
    Method(
        name="simpo",
        loss=reference_free.simpo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "eps": EPS, "nll_weight": WEIGHT},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z) + nll_weight·NLL, z = beta·R - gamma",
        paper="Meng, Xia, Chen 2024, arXiv:2405.14734",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="simpo_hinge",
        loss=averaged.simpo_hinge,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "delta": DELTA},
        formula="max(0, delta - (beta·R - gamma))",
        paper="Meng, Xia, Chen 2024, arXiv:2405.14734",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="cpo_simpo",
        loss=reference_free.cpo_simpo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "eps": EPS, "nll_weight": NLL_WEIGHT_ABOVE_0},
        formula="simpo with nll_weight > 0",
        paper="fe1ixxu/CPO_SIMPO",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="alphapo",
        loss=averaged.alphapo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "alpha": BEND},
        formula="-log σ(beta·(r(m_w) - r(m_l)) - gamma), r(m) = (1 - exp(-alpha·m))/alpha",
        paper="Gupta et al. 2025, arXiv:2501.03884",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="simper",
        loss=averaged.simper,
        logps="mean",
        formula="exp(m_l) - exp(m_w)",
        paper="Xiao et al. 2025, arXiv:2502.00883",
        rewards=from_probability,
    ),
    Method(
        name="orpo",
        loss=reference_free.orpo,
        logps="mean",
        nll_scope=True,
        ranges={"odds_weight": WEIGHT},
        formula="NLL - odds_weight·log σ(log odds(chosen) - log odds(rejected))",
        paper="Hong, Lee, Thorne 2024, arXiv:2403.07691",
        diagnostics=diagnostics.odds,
        rewards=from_log_prob("odds_weight"),
        parameter_aliases={"beta": "odds_weight", "lam": "odds_weight", "lambda": "odds_weight"},
    ),
    Method(
        name="arpo",
        loss=displacement.arpo,
        logps="sum",
        ranges={
            "beta": BETA,
            "c1": C1,
            "c2": C2,
            "tau_min": TAU_MIN,
            "detach_tau": DETACH_TAU,
            "nll_weight": WEIGHT,
        },
        formula="-log σ(beta·(log π(y_w) - tau·log π(y_l))) + nll_weight·NLL, "
        "tau = max(tau_min, min(1, c1·exp(c2·abs(m_w - m_l)) - 1))",
        paper="Xu et al. 2024, arXiv:2410.03115",
        rewards=from_log_prob("beta"),
        advice=_arpo_advice,
    ),
)
