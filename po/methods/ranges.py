"""What the hyperparameters that several methods share may be."""

from collections.abc import Sequence

from po.methods.hyperparameters import Choice, Range

_INF = float("inf")

BETA = Range(0, _INF, "reward per nat", low_open=True)
BETA_PER_TOKEN = Range(0, _INF, "reward per nat per token", low_open=True)
TAU = Range(0, _INF, "1 per nat", low_open=True)
GAMMA = Range(0, _INF, "reward")
MARGIN = Range(0, _INF, "nats")
DELTA = Range(0, _INF, "reward", low_open=True)
EPS = Range(0, 0.5, "probability", high_open=True)
WEIGHT = Range(0, _INF, "weight")
FOCUS = Range(0, _INF, "power")

_REACHABLE_NATS_PER_TOKEN = 2.0


def one_of(values: Sequence[str], meaning: str) -> Choice:
    """A choice among words.

    Args:
        values: the words.
        meaning: what is chosen.
    """
    return Choice(tuple(values), meaning)


def advise_on_target(nats_per_token: float, remedy: str) -> tuple[str, ...]:
    """A remark about a target margin that averages hardly ever reach; none where it is near.

    Args:
        nats_per_token: the target margin.
        remedy: what to do about it.
    """
    if nats_per_token <= _REACHABLE_NATS_PER_TOKEN:
        return ()
    return (
        f"The target margin is {nats_per_token:g} nats per token, which is hardly ever reached: "
        f"the loss then widens margins without end. {remedy}",
    )


def advise_on_square(value: float) -> tuple[str, ...]:
    """A remark about a squared distance that is large from the start; none where it is small.

    Args:
        value: the loss at the start.
    """
    if value <= 1:
        return ()
    return (
        f"The loss starts at {value:g}: clipping of the gradient norm decides the step, "
        "and a beta taken over from DPO means another thing here.",
    )
