"""The three preference pairs on which the values in the loss tests were worked, in float64.

They are awkward on purpose: pair 2 is ranked wrongly and the metric disagrees with its label, and every
length-averaged lead is negative though two of the summed ones are positive, so a loss that sums where it
should average cannot give the right values.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from po.methods import METHODS
from po.methods.method import Method

LOG_PROBS = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CHOSEN_LENGTH, REJECTED_LENGTH = row(10, 16, 6), row(12, 15, 8)
SUMMED = {
    "policy_chosen": row(-12.0, -20.5, -7.25),
    "policy_rejected": row(-14.0, -19.0, -9.5),
    "reference_chosen": row(-12.5, -20.0, -8.0),
    "reference_rejected": row(-13.0, -19.5, -8.5),
}
AVERAGED = {
    name: value / (CHOSEN_LENGTH if name.endswith("chosen") else REJECTED_LENGTH)
    for name, value in SUMMED.items()
}
CHOSEN_NLL = {
    "token_batch": -SUMMED["policy_chosen"].sum() / CHOSEN_LENGTH.sum(),
    "seq_mean": -AVERAGED["policy_chosen"],
    "seq_sum": -SUMMED["policy_chosen"],
}
CLASSIFIER = row(0.5, 0.9, 0.2)  # probability that a rejected prompt belongs to the desirable ones
DENSITY_RATIO = torch.cat([torch.ones(3).double(), (CLASSIFIER / (1 - CLASSIFIER + 1e-8)).clamp(0.5, 10)])
OTHERS = {
    "chosen_length": CHOSEN_LENGTH,
    "rejected_length": REJECTED_LENGTH,
    "chosen_score": row(0.85, 0.78, 0.90),
    "rejected_score": row(0.70, 0.80, 0.60),
    "win_probability": row(0.8, 0.4, 0.9),
    "reference_entropy": row(0.20, 0.35, 0.10),
    "chosen_kl": row(0.8, 1.5, 0.6),
    "rejected_kl": row(1.0, 1.2, 0.9),
    "policy_chosen_mean": AVERAGED["policy_chosen"],
    "policy_rejected_mean": AVERAGED["policy_rejected"],
    "chosen_collision": row(-0.9, -1.1, -1.0),  # mean over tokens of log sum p(v)^2
    "rejected_collision": row(-1.0, -1.2, -0.8),
    "density_ratio": torch.ones(6).double(),
    "desirable": torch.tensor([True] * 3 + [False] * 3),
    "policy_ranked": row(-12, -20.5, -9, -12, -14, -1, -7.25, -9.5, -3).reshape(3, 3),
    "reference_ranked": row(-12.5, -20, -8, -12.5, -13, -2, -8, -8.5, -4).reshape(3, 3),
    # The second and the third list have two candidates: pairs 1 and 3.
    "candidate_mask": torch.tensor([[True, True, True], [True, True, False], [True, True, False]]),
    "kl": (row(-25.0, -31.0, -18.0) - row(-26.0, -30.5, -19.0)).mean(),
    "reward_shift": torch.tensor(-0.0125).double(),  # mean reward of the six completions
    "batch_margin": torch.tensor(0.75).double(),
    "running_margin": torch.tensor(0.075).double(),  # first step, decay 0.9
    "kept": torch.ones(3).double(),
}


def log_probs(rule: str, alpha: float = 1.0) -> dict[str, Tensor]:
    """The four log-probabilities under a rule, all tokens of a completion being equally likely."""
    if rule == "sum":
        return dict(SUMMED)
    shared = torch.minimum(CHOSEN_LENGTH, REJECTED_LENGTH)
    counted = {
        "mean": lambda length: torch.ones_like(length),
        "shared_length": lambda length: shared + alpha * (length - shared),
        "sampled": lambda length: shared,  # its expectation
    }[rule]
    lengths = {name: CHOSEN_LENGTH if name.endswith("chosen") else REJECTED_LENGTH for name in SUMMED}
    return {name: value * counted(lengths[name]) / lengths[name] for name, value in SUMMED.items()}


def read_inputs(method: Method, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs that the loss reads under these values."""
    when = method.when
    return tuple(n for n in method.inputs if n not in when or values[when[n][0]] == when[n][1])


def inputs_of(
    method_name: str, params: Mapping[str, Any] | None = None, **changed: Tensor
) -> dict[str, Tensor]:
    """Copies of the tensors that the method's loss takes under these settings."""
    method = METHODS[method_name]
    values = method.check_params(params or {})
    known = OTHERS | log_probs(method.logps_for(values), values.get("alpha", 1.0))
    for side in ("policy", "reference"):
        known[side] = torch.cat([known[f"{side}_chosen"], known[f"{side}_rejected"]])
    if method.needs_nll:
        known["chosen_nll"] = CHOSEN_NLL[str(values["nll_reduction"])].expand(3)
    known |= changed
    return {name: known[name].clone() for name in read_inputs(method, values)}


def loss_of(
    method_name: str,
    params: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    **changed: Tensor,
) -> Tensor:
    """The losses of the three pairs; inputs are summed, averaged and reduced as the settings say."""
    method = METHODS[method_name]
    values = method.check_params(params or {})
    inputs = inputs_of(method_name, params, **changed)
    converted = {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}
    return method.loss(**converted, **method.loss_arguments(values))


def losses_and_gradients(
    name: str,
    params: Mapping[str, Any] | None,
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor | None = None,
    reference_rejected: Tensor | None = None,
    **changed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of other pairs, and the gradients of their sum at the two policy log-probabilities.

    Whatever else a loss reads is such that it makes no difference (no NLL, equal lengths, reward shift 0,
    everything kept), or given. Without a reference, it is 0 everywhere.
    """
    method = METHODS[name]
    values = method.check_params(params or {})
    chosen, rejected = policy_chosen.clone().requires_grad_(), policy_rejected.clone().requires_grad_()
    zero = torch.zeros_like(policy_chosen)
    reference = (
        zero if reference_chosen is None else reference_chosen,
        zero if reference_rejected is None else reference_rejected,
    )
    known = _neutral(policy_chosen) | dict(zip(LOG_PROBS, (chosen, rejected, *reference), strict=True))
    for side, pair in (("policy", (chosen, rejected)), ("reference", reference)):
        known[side], known[f"{side}_ranked"] = torch.cat(pair), torch.stack(pair, dim=1)
    known |= changed
    inputs = {key: known[key] for key in read_inputs(method, values)}
    losses = method.loss(**inputs, **method.loss_arguments(values))
    losses.sum().backward()
    return losses.detach(), chosen.grad, rejected.grad


def _neutral(like: Tensor) -> dict[str, Tensor]:
    zero, one = torch.zeros_like(like), torch.ones_like(like)
    true = one.bool()
    scalars = dict.fromkeys(("kl", "reward_shift", "batch_margin", "running_margin"), like.new_zeros(()))
    return scalars | {
        "chosen_nll": zero,
        "chosen_length": 10 * one,
        "rejected_length": 10 * one,
        "chosen_score": 0.8 * one,
        "rejected_score": 0.7 * one,
        "win_probability": 0.7 * one,
        "reference_entropy": torch.exp(-one),
        "chosen_kl": zero,
        "rejected_kl": zero,
        "policy_chosen_mean": zero,
        "policy_rejected_mean": zero,
        "chosen_collision": zero,
        "rejected_collision": zero,
        "density_ratio": torch.cat([one, one]),
        "desirable": torch.cat([true, ~true]),
        "candidate_mask": torch.stack([true, true], dim=1),
        "kept": one,
    }
