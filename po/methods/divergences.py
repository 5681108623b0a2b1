"""Methods of pairs with another divergence, or with whole distributions over tokens."""

from collections.abc import Mapping

from po.losses import divergence, token_level
from po.methods import diagnostics
from po.methods.hyperparameters import ParamValue, Range
from po.methods.method import Method
from po.methods.ranges import BETA, WEIGHT, advise_on_square, one_of
from po.methods.rewards import from_log_ratio

EPS_ABOVE_0 = Range(
    0, 0.5, "probability", low_open=True, high_open=True, hint="The loss takes the logarithm of eps."
)
ALPHA_DIVERGENCE = Range(0, 1, "order")
CLIP = Range(0, float("inf"), "reward", low_open=True)
PHI = Range(0, float("inf"), "factor", low_open=True)


def _cal_dpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    return advise_on_square(1 / (4 * float(values["beta"]) ** 2))


ENTRIES = (
    Method(
        name="exo",
        loss=divergence.exo,
        logps="sum",
        ranges={"beta": BETA, "eps": EPS_ABOVE_0},
        formula="σ(z)·log(σ(z)/(1 - eps)) + σ(-z)·log(σ(-z)/eps), z = beta·Δ",
        paper="Ji et al. 2024, arXiv:2402.00856",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="f_dpo",
        loss=divergence.f_dpo,
        logps="sum",
        ranges={
            "beta": BETA,
            "divergence": one_of(divergence.DIVERGENCES, "divergence between policy and reference"),
            "alpha": ALPHA_DIVERGENCE,
        },
        formula="-log σ(beta·(g(a) - g(b))), "
        "g = x, log σ(x), -exp(-x) or (exp((alpha - 1)·x) - 1)/(alpha - 1)",
        paper="Wang et al. 2023, arXiv:2309.16240",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"f_divergence_type": "divergence", "f_alpha_divergence_coef": "alpha"},
    ),
    Method(
        name="chi_po",
        loss=divergence.chi_po,
        logps="sum",
        ranges={"beta": BETA, "clip": CLIP},
        formula="-log σ(max(-2·clip, min(2·clip, beta·(a + exp(a) - b - exp(b)))))",
        paper="Huang et al. 2024, arXiv:2407.13399",
        diagnostics=diagnostics.clipped,
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="cal_dpo",
        loss=divergence.cal_dpo,
        logps="sum",
        ranges={"beta": BETA},
        formula="-log σ(Δ) + (a - 1/(2·beta))²/2 + (b + 1/(2·beta))²/2",
        paper="Xiao et al. 2024, arXiv:2412.14516",
        rewards=from_log_ratio("beta"),
        advice=_cal_dpo_advice,
    ),
    Method(
        name="tdpo1",
        loss=token_level.tdpo1,
        logps="sum",
        ranges={"beta": BETA},
        formula="-log σ(beta·(Δ - (KL_l - KL_w)))",
        paper="Zeng et al. 2024, arXiv:2404.11999",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="tdpo2",
        loss=token_level.tdpo2,
        logps="sum",
        ranges={"beta": BETA, "alpha": WEIGHT},
        formula="-log σ(beta·(Δ - alpha·(KL_l - KL_w))), KL_w without gradient",
        paper="Zeng et al. 2024, arXiv:2404.11999",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="mallows_dpo",
        loss=token_level.mallows_dpo,
        logps="sum",
        ranges={"beta": BETA, "phi": PHI},
        formula="-log σ(-phi·log(h)·beta·Δ)",
        paper="Chen et al. 2024, arXiv:2405.14953",
        diagnostics=diagnostics.entropies,
        rewards=from_log_ratio("beta"),
    ),
)
