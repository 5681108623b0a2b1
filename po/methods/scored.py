"""Methods that read the scores of a metric, a probability of winning, or a ranking."""

from collections.abc import Mapping

from po.losses import ranked, scored
from po.methods import diagnostics
from po.methods.hyperparameters import ParamValue, Range
from po.methods.method import Method
from po.methods.ranges import BETA, WEIGHT, advise_on_square, one_of
from po.methods.rewards import from_log_ratio, from_ranking

_FAINT_SCALE = 5.0
SCALE = Range(0, float("inf"), "1 per unit of the metric", low_open=True)
ETA = Range(0, float("inf"), "nats per unit of the metric", low_open=True)


def _soft_dpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if values["link"] == "logit" or float(values["scale"]) >= _FAINT_SCALE:
        return ()
    return (
        "With scores in [0, 1] a scale of 1 keeps every label between 0.27 and 0.73. "
        "Take a scale of 10 to 30, or link logit.",
    )


def _odpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if values["transform"] != "log":
        return ()
    if values["nonpositive"] == "signed":
        return ("A negative gap has no logarithm: this will be refused. Take nonpositive drop or zero.",)
    return (
        "The logarithm of a gap below 1 is negative and asks for a smaller lead than DPO. "
        "Scores in [0, 1] want a larger unit (times 100), or transform identity.",
    )


def _rebel_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    eta = float(values["eta"])
    if eta >= _FAINT_SCALE:
        return ()
    return (
        f"A gap of 0.1 in the metric asks for a lead of {0.1 * eta:g} nats only. "
        "Scores in [0, 1] want an eta of 10 to 100.",
    )


def _sppo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    return advise_on_square(1 / (2 * float(values["beta"]) ** 2))


ENTRIES = (
    Method(
        name="soft_dpo",
        loss=scored.soft_dpo,
        logps="sum",
        ranges={
            "beta": BETA,
            "scale": SCALE,
            "link": one_of(scored.LINKS, "scores as they are, or as probabilities"),
        },
        formula="-P·log σ(beta·Δ) - (1 - P)·log σ(-beta·Δ), "
        "P = σ(scale·(t(s_w) - t(s_l))), t = identity or logit",
        paper="CustomPOs-for-SLMs (there mpo)",
        diagnostics=diagnostics.soft_labels,
        rewards=from_log_ratio("beta"),
        advice=_soft_dpo_advice,
    ),
    Method(
        name="odpo",
        loss=scored.odpo,
        logps="sum",
        ranges={
            "beta": BETA,
            "alpha": WEIGHT,
            "transform": one_of(scored.TRANSFORMS, "what is taken of the gap"),
            "nonpositive": one_of(scored.NONPOSITIVE, "what a pair without a gap in its favour becomes"),
        },
        formula="-log σ(beta·Δ - alpha·f(s_w - s_l)), f = log or identity",
        paper="Amini, Vieira, Cotterell 2024, arXiv:2402.10571",
        diagnostics=diagnostics.gaps,
        rewards=from_log_ratio("beta"),
        advice=_odpo_advice,
    ),
    Method(
        name="rebel",
        loss=scored.rebel,
        logps="sum",
        ranges={"eta": ETA},
        formula="(Δ - eta·(s_w - s_l))²",
        paper="Gao et al. 2024, arXiv:2404.16767",
        diagnostics=diagnostics.gaps,
        rewards=from_log_ratio("eta", inverse=True),
        advice=_rebel_advice,
    ),
    Method(
        name="sppo",
        loss=scored.sppo,
        logps="sum",
        ranges={"beta": BETA, "labels": one_of(scored.LABELS, "P(win) is 1, or as given")},
        when={"win_probability": ("labels", "soft")},
        formula="(a - z)² + (b + z)², z = (P(win) - 1/2)/beta",
        paper="Wu et al. 2024, arXiv:2405.00675",
        rewards=from_log_ratio("beta"),
        advice=_sppo_advice,
    ),
    Method(
        name="pl_dpo",
        loss=ranked.pl_dpo,
        logps="sum",
        ranges={"beta": BETA},
        formula="-Σ_k (r_k - log Σ_(j≥k) exp(r_j)), r = beta·log-ratio, best first",
        paper="Rafailov et al. 2023, arXiv:2305.18290, appendix",
        rewards=from_ranking("beta"),
    ),
)
