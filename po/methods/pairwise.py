"""Methods of pairs that read the lead of the chosen completion beyond the reference."""

from collections.abc import Mapping

from po.losses import anchored, displacement, length, noise
from po.methods import diagnostics
from po.methods.hyperparameters import Choice, ParamValue, Range
from po.methods.method import Method
from po.methods.ranges import BETA, BETA_PER_TOKEN, DELTA, EPS, GAMMA, MARGIN, TAU, WEIGHT, advise_on_target
from po.methods.rewards import from_log_ratio

ALPHA_ROPO = Range(1, float("inf"), "ratio", low_open=True)
ALPHA_LENGTH = Range(0, float("inf"), "reward per token")
REFERENCE_FREE = Choice((False, True), "take the reference as 0")


def _ipo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if not values["length_norm"]:
        return ()
    target = 1 / (2 * float(values["tau"]))
    return advise_on_target(target, "Averaged log-probabilities want a tau of 0.5 to 10.")


def _ln_dpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if float(values["beta"]) >= 1:
        return ()
    return (
        "beta counts per token here: below 1 the loss hardly tells pairs apart. "
        "Take DPO's beta times the mean length (the paper has 5).",
    )


def _robust_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if values["eps"] == 0:
        return ()
    return ("The loss has no lower bound: negative values are no fault, and the lowest is not the best.",)


ENTRIES = (
    Method(
        name="dpo",
        loss=anchored.dpo,
        logps="sum",
        ranges={"beta": BETA, "margin": MARGIN, "reference_free": REFERENCE_FREE},
        formula="-log σ(beta·(Δ - margin))",
        paper="Rafailov et al. 2023, arXiv:2305.18290",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="dpo_gamma",
        loss=anchored.dpo_gamma,
        logps="sum",
        ranges={"beta": BETA, "gamma": GAMMA, "eps": EPS},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z), z = beta·Δ - gamma",
        paper="Santos 2024, MSc thesis, Instituto Superior Técnico",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="slic_dpo",
        loss=anchored.slic_dpo,
        logps="sum",
        ranges={"beta": BETA, "delta": DELTA},
        formula="max(0, delta - beta·Δ)",
        paper="Liu et al. 2023, arXiv:2309.06657",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="ipo",
        loss=anchored.ipo,
        logps="mean",
        length_norm=True,
        ranges={"tau": TAU},
        formula="(Δ - 1/(2·tau))²",
        paper="Azar et al. 2023, arXiv:2310.12036",
        rewards=from_log_ratio("tau"),
        parameter_aliases={"beta": "tau"},
        advice=_ipo_advice,
    ),
    Method(
        name="cdpo",
        loss=noise.cdpo,
        logps="sum",
        ranges={"beta": BETA, "eps": EPS},
        formula="-(1 - eps)·log σ(beta·Δ) - eps·log σ(-beta·Δ)",
        paper="Mitchell 2023, note on DPO with noisy preferences",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="robust_dpo",
        loss=noise.robust_dpo,
        logps="sum",
        ranges={"beta": BETA, "eps": EPS},
        formula="(-(1 - eps)·log σ(beta·Δ) + eps·log σ(-beta·Δ))/(1 - 2·eps)",
        paper="Ray Chowdhury, Kini, Natarajan 2024, arXiv:2403.00409",
        rewards=from_log_ratio("beta"),
        advice=_robust_advice,
    ),
    Method(
        name="ropo",
        loss=noise.ropo,
        logps="sum",
        ranges={"beta": BETA, "alpha": ALPHA_ROPO},
        formula="4·alpha/(1 + alpha)²·(alpha·σ(-beta·Δ) - log σ(beta·Δ))",
        paper="Liang et al. 2024, arXiv:2404.04102",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"alpha_ropo": "alpha"},
    ),
    Method(
        name="rpo",
        loss=displacement.rpo,
        logps="sum",
        ranges={"beta": BETA, "nll_weight": WEIGHT},
        formula="-log σ(beta·Δ) + nll_weight·NLL",
        paper="Pang et al. 2024, arXiv:2404.19733",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="dpop",
        loss=displacement.dpop,
        logps="sum",
        ranges={"beta": BETA, "lam": WEIGHT},
        formula="-log σ(beta·(Δ - lam·max(0, -a)))",
        paper="Pal et al. 2024, arXiv:2402.13228",
        diagnostics=diagnostics.fallen,
        rewards=from_log_ratio("beta"),
        parameter_aliases={"lambda": "lam", "dpop_lambda": "lam"},
    ),
    Method(
        name="ln_dpo",
        loss=length.ln_dpo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN},
        formula="-log σ(beta·Δ)",
        paper="Lambert et al. 2024, arXiv:2411.15124",
        rewards=from_log_ratio("beta"),
        advice=_ln_dpo_advice,
    ),
    Method(
        name="length_dpo",
        loss=length.length_dpo,
        logps="sum",
        ranges={"beta": BETA, "alpha": ALPHA_LENGTH},
        formula="-log σ(beta·Δ + alpha·(n_w - n_l))",
        paper="Park et al. 2024, arXiv:2403.19159",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="ld_dpo",
        loss=anchored.dpo,
        logps="shared_length",
        ranges={"beta": BETA, "margin": MARGIN, "reference_free": REFERENCE_FREE},
        formula="-log σ(beta·(Δ - margin)), tokens beyond the shorter length count alpha",
        paper="Liu et al. 2024, arXiv:2409.06411",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"ld_alpha": "alpha"},
    ),
    Method(
        name="sampo",
        loss=anchored.dpo,
        logps="sampled",
        batch_coupled=True,  # one draw for all of a micro-batch
        ranges={"beta": BETA, "margin": MARGIN, "reference_free": REFERENCE_FREE},
        formula="-log σ(beta·(Δ - margin)), as many tokens of either as the shorter has, drawn",
        paper="Lu et al. 2024, arXiv:2406.10957",
        rewards=from_log_ratio("beta"),
    ),
)
