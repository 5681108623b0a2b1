"""Methods of single completions with a label: desirable, or not."""

from collections.abc import Mapping
from types import MappingProxyType

from po.losses import transport, unpaired
from po.methods import diagnostics
from po.methods.hyperparameters import Choice, Option, Range
from po.methods.loss_state import MismatchedKL, RunningShift
from po.methods.method import Method
from po.methods.ranges import BETA, EPS, WEIGHT
from po.methods.rewards import from_completion_ratio

DENSITY: Mapping[str, Option] = MappingProxyType(
    {
        "udm": Option(Choice((False, True), "weigh undesirable completions by their prompts"), False),
        "prompt_sample_size": Option(Range(1, float("inf"), "prompts of each kind"), 1024.0),
        "min_density_ratio": Option(Range(0, float("inf"), "ratio"), 0.5),
        "max_density_ratio": Option(Range(0, float("inf"), "ratio", low_open=True), 10.0),
    }
)
"""Settings of BCO's density weights; the last two bound the ratio, not the probability."""

ENTRIES = (
    Method(
        name="kto",
        loss=unpaired.kto,
        logps="sum",
        batch_coupled=True,
        state=MismatchedKL,
        ranges={"beta": BETA, "desirable_weight": WEIGHT, "undesirable_weight": WEIGHT},
        formula="desirable_weight·(1 - σ(beta·(a - z))) or undesirable_weight·(1 - σ(beta·(z - b))), z = KL",
        paper="Ethayarajh et al. 2024, arXiv:2402.01306",
        rewards=from_completion_ratio("beta"),
        parameter_aliases={
            "lam_D": "desirable_weight",
            "lam_U": "undesirable_weight",
            "lambda_D": "desirable_weight",
            "lambda_U": "undesirable_weight",
        },
    ),
    Method(
        name="apo_zero_unpaired",
        loss=unpaired.apo_zero_unpaired,
        logps="sum",
        ranges={"beta": BETA, "desirable_weight": WEIGHT, "undesirable_weight": WEIGHT},
        formula="desirable_weight·(1 - σ(beta·a)) or undesirable_weight·σ(beta·b)",
        paper="D'Oosterlinck et al. 2024, arXiv:2408.06266",
        rewards=from_completion_ratio("beta"),
    ),
    Method(
        name="bco",
        loss=unpaired.bco,
        logps="sum",
        batch_coupled=True,
        state=RunningShift,
        when={"density_ratio": ("udm", True)},
        extra=DENSITY,
        ranges={"beta": BETA},
        formula="-log σ(beta·a - δ) or -w·log σ(δ - beta·b), δ = running mean reward",
        paper="Jung et al. 2024, arXiv:2404.04656",
        rewards=from_completion_ratio("beta"),
    ),
    Method(
        name="aot_unpaired",
        loss=transport.aot_unpaired,
        logps="sum",
        per_example=False,
        batch_coupled=True,
        ranges={"beta": BETA, "eps": EPS},
        formula="-(1 - eps)·log σ(beta·d) - eps·log σ(-beta·d), d = sorted a - sorted b",
        paper="Melnyk et al. 2024, arXiv:2406.05882",
        both_classes=True,
        diagnostics=diagnostics.one_class,
        rewards=from_completion_ratio("beta"),
    ),
)
