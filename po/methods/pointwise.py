"""Methods of pairs that judge each completion on its own, or the batch as a whole."""

from po.losses import pointwise, transport
from po.methods.hyperparameters import Choice
from po.methods.loss_state import RunningShift
from po.methods.method import Method
from po.methods.ranges import BETA, EPS
from po.methods.rewards import from_log_ratio

DETACH_KL = Choice((True, False), "no gradient through the mean log-ratios")

ENTRIES = (
    Method(
        name="nca",
        loss=pointwise.nca,
        logps="sum",
        ranges={"beta": BETA},
        formula="-log σ(beta·a) - log σ(-beta·a)/2 - log σ(-beta·b)/2",
        paper="Chen et al. 2024, arXiv:2402.05369",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="bco_pair",
        loss=pointwise.bco_pair,
        logps="sum",
        batch_coupled=True,
        state=RunningShift,
        ranges={"beta": BETA},
        formula="-log σ(beta·a - δ) - log σ(δ - beta·b), δ = running mean reward",
        paper="Jung et al. 2024, arXiv:2404.04656",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="apo_zero",
        loss=pointwise.apo_zero,
        logps="sum",
        ranges={"beta": BETA},
        formula="1 - σ(beta·a) + σ(beta·b)",
        paper="D'Oosterlinck et al. 2024, arXiv:2408.06266",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="apo_down",
        loss=pointwise.apo_down,
        logps="sum",
        ranges={"beta": BETA},
        formula="1 + σ(beta·a) - σ(beta·Δ)",
        paper="D'Oosterlinck et al. 2024, arXiv:2408.06266",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="kto_pair",
        loss=pointwise.kto_pair,
        logps="sum",
        per_example=False,
        batch_coupled=True,
        ranges={"beta": BETA, "detach_kl": DETACH_KL},
        formula="1 - σ(beta·(a - max(0, mean b))) and 1 - σ(beta·(max(0, mean a) - b))",
        paper="TRL 0.7.11, after arXiv:2402.01306",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="aot",
        loss=transport.aot,
        logps="sum",
        per_example=False,
        batch_coupled=True,
        ranges={"beta": BETA, "eps": EPS},
        formula="-(1 - eps)·log σ(beta·d) - eps·log σ(-beta·d), d = sorted R - sorted R of the reference",
        paper="Melnyk et al. 2024, arXiv:2406.05882",
        rewards=from_log_ratio("beta"),
    ),
)
