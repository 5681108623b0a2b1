"""Implicit rewards for the log: what a method's loss takes as the worth of each completion.

A reward function gets the loss's own inputs and the full hyperparameters, and returns, detached, the rewards
of the chosen and of the rejected completions, one entry per pair; or, for methods of single completions, one
tensor with one entry per completion. Target margins are not taken off.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from po.methods.hyperparameters import ParamValue

Inputs = Mapping[str, Tensor]
Values = Mapping[str, ParamValue]
PairRewards = Callable[[Inputs, Values], tuple[Tensor, Tensor]]
CompletionRewards = Callable[[Inputs, Values], Tensor]
RewardFunction = PairRewards | CompletionRewards


def from_log_prob(scale: str) -> PairRewards:
    """Rewards of losses without a reference: scale * log-probability, as the method averages it.

    Args:
        scale: name of the hyperparameter that scales them.

    Returns:
        The reward function.
    """

    def rewards(inputs: Inputs, params: Values) -> tuple[Tensor, Tensor]:
        factor = float(params[scale])
        return factor * inputs["policy_chosen"].detach(), factor * inputs["policy_rejected"].detach()

    return rewards


def from_log_ratio(scale: str, *, inverse: bool = False) -> PairRewards:
    """Rewards of losses with a reference: scale * (policy - reference).

    Args:
        scale: name of the hyperparameter that scales them.
        inverse: divide by it instead.

    Returns:
        The reward function; with ``reference_free`` among the hyperparameters and true, the reference
        counts as 0.
    """

    def rewards(inputs: Inputs, params: Values) -> tuple[Tensor, Tensor]:
        if params.get("reference_free", False):
            return from_log_prob(scale)(inputs, params)
        factor = 1 / float(params[scale]) if inverse else float(params[scale])
        chosen = inputs["policy_chosen"] - inputs["reference_chosen"]
        rejected = inputs["policy_rejected"] - inputs["reference_rejected"]
        return factor * chosen.detach(), factor * rejected.detach()

    return rewards


def from_probability(inputs: Inputs, params: Values) -> tuple[Tensor, Tensor]:
    """Rewards of losses on averaged log-probabilities: the geometric mean of the tokens' probabilities."""
    return inputs["policy_chosen"].detach().exp(), inputs["policy_rejected"].detach().exp()


def from_ranking(scale: str) -> PairRewards:
    """Rewards of losses on rankings: scale * (policy - reference) of the best and of the last candidate.

    Args:
        scale: name of the hyperparameter that scales them.

    Returns:
        The reward function; the best candidate stands for the chosen completion.
    """

    def rewards(inputs: Inputs, params: Values) -> tuple[Tensor, Tensor]:
        values = float(params[scale]) * (inputs["policy_ranked"] - inputs["reference_ranked"]).detach()
        last = inputs["candidate_mask"].sum(dim=1, keepdim=True) - 1
        return values[:, 0], values.gather(1, last).squeeze(1)

    return rewards


def from_completion_ratio(scale: str) -> CompletionRewards:
    """Rewards of losses of single completions: scale * (policy - reference).

    Args:
        scale: name of the hyperparameter that scales them.

    Returns:
        The reward function; one entry per completion, in the order of the batch.
    """

    def rewards(inputs: Inputs, params: Values) -> Tensor:
        return float(params[scale]) * (inputs["policy"] - inputs["reference"]).detach()

    return rewards
