"""What some methods log besides their rewards: figures without which their training cannot be judged.

Each function gets the loss's inputs and the method's values, and returns one value per example by name,
detached.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from po.losses.anchored import log_ratios
from po.losses.divergence import chi_lead
from po.losses.reference_free import log_odds_ratio
from po.losses.scored import Link, label_probability
from po.methods.hyperparameters import ParamValue

Inputs = Mapping[str, Tensor]
Values = Mapping[str, ParamValue]
Diagnostics = Callable[[Inputs, Values], dict[str, Tensor]]


@torch.no_grad()
def odds(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """ORPO: log-odds of chosen over rejected, and the log of their sigmoid, under TRL's names."""
    ratio = log_odds_ratio(inputs["policy_chosen"], inputs["policy_rejected"])
    return {"log_odds_chosen": ratio, "log_odds_ratio": F.logsigmoid(ratio)}


@torch.no_grad()
def clipped(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """Chi-PO: 1 for each pair whose lead is clipped and which therefore has no gradient."""
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    lead = chi_lead(*(inputs[name] for name in names), beta=float(values["beta"]))
    return {"clipped": (lead.abs() > 2 * float(values["clip"])).float()}


@torch.no_grad()
def soft_labels(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """Soft-label DPO: the label's probability, and 1 for each pair that the metric turns round."""
    scale, link = float(values["scale"]), cast(Link, values["link"])
    probability = label_probability(inputs["chosen_score"], inputs["rejected_score"], scale=scale, link=link)
    return {"label_probability": probability, "labels_reversed": (probability < 0.5).float()}


@torch.no_grad()
def gaps(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """Losses on the metric's gap: the gap, and 1 for each pair on which metric and label disagree."""
    gap = inputs["chosen_score"] - inputs["rejected_score"]
    return {"score_gap": gap, "gaps_not_positive": (gap <= 0).float()}


@torch.no_grad()
def fallen(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """DPO-Positive: 1 for each pair whose chosen completion is less likely than under the reference."""
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    chosen, _ = log_ratios(*(inputs[name] for name in names))
    return {"chosen_below_reference": (chosen < 0).float()}


@torch.no_grad()
def entropies(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """Mallows-DPO: the reference's entropy, in units of log(vocabulary)."""
    return {"reference_entropy": inputs["reference_entropy"]}


@torch.no_grad()
def one_class(inputs: Inputs, values: Values) -> dict[str, Tensor]:
    """Unpaired AOT: 1 for a micro-batch that has completions of one kind only and teaches nothing."""
    share = inputs["desirable"].float().mean()
    return {"one_class_batches": ((share == 0) | (share == 1)).float().reshape(1)}
