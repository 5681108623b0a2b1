"""Methods whose weight of a pair, or whose beta, depends on how well pairs are ranked."""

import math
from collections.abc import Mapping

from po.losses import weighted
from po.methods.hyperparameters import ParamValue, Range
from po.methods.loss_state import RunningMargin
from po.methods.method import Method
from po.methods.ranges import BETA, FOCUS
from po.methods.rewards import from_log_ratio

TEMPERATURE = Range(0, 1, "reward", low_open=True)
SENSITIVITY = Range(0, float("inf"), "1 per nat")
# Slope of discopop at no lead: (1 - log 2) / (4 t) - 3 / 4, in reward; above 0 for a t below this.
_DISCOPOP_TURN = (1 - math.log(2)) / 3


def _discopop_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if float(values["temperature"]) >= _DISCOPOP_TURN:
        return ()
    return ("At the start this loss narrows the leads before it widens them: its authors say so too.",)


ENTRIES = (
    Method(
        name="fpo",
        loss=weighted.fpo,
        logps="sum",
        ranges={"beta": BETA, "focus": FOCUS},
        formula="-σ(-beta·Δ)^focus·log σ(beta·Δ)",
        paper="CustomPOs-for-SLMs, after Lin et al. 2017, arXiv:1708.02002",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"gamma": "focus"},
    ),
    Method(
        name="fcpo",
        loss=weighted.fcpo,
        logps="sum",
        ranges={"beta": BETA, "focus": FOCUS},
        formula="-σ(-beta·Δ)^focus·log σ(beta·R)",
        paper="CustomPOs-for-SLMs",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"gamma": "focus"},
    ),
    Method(
        name="focal_po",
        loss=weighted.focal_po,
        logps="sum",
        ranges={"beta": BETA, "focus": FOCUS},
        formula="-σ(beta·Δ)^focus·log σ(beta·Δ)",
        paper="Liu et al. 2025, arXiv:2501.06645",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"gamma": "focus"},
    ),
    Method(
        name="discopop",
        loss=weighted.discopop,
        logps="sum",
        ranges={"beta": BETA, "temperature": TEMPERATURE},
        formula="-(1 - w)·log σ(z) + w·exp(-z), z = beta·Δ, w = σ(z/temperature)",
        paper="Lu et al. 2024, arXiv:2406.08414",
        rewards=from_log_ratio("beta"),
        parameter_aliases={"tau": "temperature", "discopop_tau": "temperature"},
        advice=_discopop_advice,
    ),
    Method(
        name="beta_dpo",
        loss=weighted.beta_dpo,
        logps="sum",
        batch_coupled=True,
        state=RunningMargin,
        ranges={"beta": BETA, "sensitivity": SENSITIVITY, "min_beta": BETA},
        formula="-log σ(max(min_beta, beta·(1 + sensitivity·(mean Δ - running mean Δ)))·Δ)",
        paper="Wu et al. 2024, arXiv:2407.08639",
        rewards=from_log_ratio("beta"),
    ),
)
