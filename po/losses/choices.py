"""The check of a hyperparameter that is a word."""

from collections.abc import Sequence

from po.methods.hyperparameters import nearest


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuses a word that a loss does not know; it would otherwise pass for its last branch.

    Args:
        name: the hyperparameter.
        value: what was given.
        allowed: what it may be.

    Raises:
        ValueError: the value is none of them; the message has the nearest and all of them.
    """
    if value not in allowed:
        raise ValueError(
            f"{name} = '{value}' is unknown{nearest(value, allowed)} It may be {', '.join(allowed)}."
        )
