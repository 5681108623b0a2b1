"""Implicit rewards for the log: what a method's loss takes as the worth of each completion.

A reward function gets the loss's own inputs and the full hyperparameters, and returns the rewards of the
chosen and of the rejected completions, detached, one entry per pair. Target margins are not taken off.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from po.hyperparameters import ParamValue

RewardFunction = Callable[[Mapping[str, Tensor], Mapping[str, ParamValue]], tuple[Tensor, Tensor]]


def from_log_prob(scale: str) -> RewardFunction:
    """Rewards of losses without a reference: scale * log-probability, as the method averages it.

    Args:
        scale: name of the hyperparameter that scales them.

    Returns:
        The reward function.
    """

    def rewards(inputs: Mapping[str, Tensor], params: Mapping[str, ParamValue]) -> tuple[Tensor, Tensor]:
        factor = float(params[scale])
        return factor * inputs["policy_chosen"].detach(), factor * inputs["policy_rejected"].detach()

    return rewards


def from_log_ratio(scale: str) -> RewardFunction:
    """Rewards of losses with a reference: scale * (policy - reference).

    Args:
        scale: name of the hyperparameter that scales them.

    Returns:
        The reward function; with ``reference_free`` among the hyperparameters and true, the reference
        counts as 0.
    """

    def rewards(inputs: Mapping[str, Tensor], params: Mapping[str, ParamValue]) -> tuple[Tensor, Tensor]:
        if params.get("reference_free", False):
            return from_log_prob(scale)(inputs, params)
        factor = float(params[scale])
        chosen = inputs["policy_chosen"] - inputs["reference_chosen"]
        rejected = inputs["policy_rejected"] - inputs["reference_rejected"]
        return factor * chosen.detach(), factor * rejected.detach()

    return rewards
