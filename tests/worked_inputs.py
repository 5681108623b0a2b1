"""The three preference pairs on which the values in the loss tests were worked, in float64.

They are awkward on purpose: pair 2 is ranked wrongly, and every length-averaged lead is negative though two
of the summed ones are positive, so a loss that sums where it should average cannot give the right values.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from po.methods import METHODS


def _row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CHOSEN_LENGTH, REJECTED_LENGTH = _row(10, 16, 6), _row(12, 15, 8)
SUMMED = {
    "policy_chosen": _row(-12.0, -20.5, -7.25),
    "policy_rejected": _row(-14.0, -19.0, -9.5),
    "reference_chosen": _row(-12.5, -20.0, -8.0),
    "reference_rejected": _row(-13.0, -19.5, -8.5),
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


def loss_of(
    method_name: str, params: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The loss of the three pairs; inputs are summed, averaged and reduced as the settings say."""
    method = METHODS[method_name]
    values = method.check_params(params or {})
    inputs = inputs_of(method_name, params)
    converted = {name: tensor.to(dtype) for name, tensor in inputs.items()}
    return method.loss(**converted, **method.loss_arguments(values))


def inputs_of(method_name: str, params: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Copies of the tensors that the method's loss takes under these settings."""
    method = METHODS[method_name]
    values = method.check_params(params or {})
    known = dict(SUMMED if method.logps_for(values) == "sum" else AVERAGED)
    if method.needs_nll:
        known["chosen_nll"] = CHOSEN_NLL[str(values["nll_reduction"])]
    return {name: known[name].clone() for name in method.inputs}
