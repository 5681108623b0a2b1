"""What a hyperparameter may be: a number in a range with its unit, or one of a few values."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

ParamValue = float | bool | str


class MethodError(ValueError):
    """A method, or a hyperparameter of one, is not as it must be."""


class ParameterError(MethodError):
    """Hyperparameters that a method does not accept.

    Attributes:
        faults: one message per faulty hyperparameter, by the name under which it was given.
    """

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = dict(faults)
        super().__init__("\n".join(self.faults.values()))


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, with their unit.

    Attributes:
        low: smallest value.
        high: largest value; infinity means no bound, never an allowed value.
        unit: unit of the value.
        low_open: `low` itself is not allowed.
        high_open: `high` itself is not allowed.
        hint: what to do instead, where a refused value has a meaning elsewhere.
    """

    low: float
    high: float
    unit: str
    low_open: bool = False
    high_open: bool = False
    hint: str = ""

    def allows(self, value: object) -> bool:
        """Whether the value is a finite number in the range; True and False are no numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def normal(self, value: ParamValue) -> ParamValue:
        """The value as it is stored: 1 and 1.0 are one value and must not make two cells."""
        return float(value)

    def bounds(self) -> str:
        """The bounds without the unit, as in ``>= 0`` or ``in [0, 0.5)``."""
        if math.isinf(self.high):
            return f"{'>' if self.low_open else '>='} {self.low:g}"
        opening, closing = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {opening}{self.low:g}, {self.high:g}{closing}"

    def describe(self) -> str:
        """The bounds with the unit, for messages."""
        return f"{self.bounds()} ({self.unit})"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values.

    Attributes:
        values: the allowed values.
        meaning: what is chosen.
        hint: what to do instead, where a refused value has a meaning elsewhere.
    """

    values: tuple[bool | str, ...]
    meaning: str
    hint: str = ""

    def allows(self, value: object) -> bool:
        """Whether the value is one of those; 0 and 1 do not pass for False and True."""
        if isinstance(value, str):
            return value in self.values
        return any(value is allowed for allowed in self.values)

    def normal(self, value: ParamValue) -> ParamValue:
        """The value as it is stored: itself."""
        return value

    def bounds(self) -> str:
        """The values, as in ``true or false``."""
        return " or ".join(shown(value) for value in self.values)

    def describe(self) -> str:
        """The values and what they choose, for messages."""
        return f"= {self.bounds()} ({self.meaning})"


Rule = Range | Choice


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that decides how a loss's inputs are computed, not what the loss does with them.

    Attributes:
        rule: what it may be.
        default: what it is unless it is given.
    """

    rule: Rule
    default: ParamValue


def shown(value: object) -> str:
    """A value as a manifest writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def nearest(name: str, known: Iterable[str], most: int = 1) -> str:
    """A phrase that names what was probably meant, or nothing.

    Args:
        name: what was written.
        known: the names that exist.
        most: how many names to offer.

    Returns:
        ``; did you mean 'beta'?``, or a full stop where nothing is near.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower_case, n=most)
    offered = " or ".join(f"'{by_lower_case[match]}'" for match in matches)
    return f"; did you mean {offered}?" if matches else "."


def value_fault(owner: str, name: str, rule: Rule, value: object) -> str | None:
    """The message about a value that a rule refuses.

    Args:
        owner: the method.
        name: the hyperparameter.
        rule: what it may be.
        value: what it is.

    Returns:
        One sentence or two, or None where the value is allowed.
    """
    if rule.allows(value):
        return None
    message = f"{owner} allows {name} {rule.describe()}; {value!r} was given."
    return f"{message} {rule.hint}" if rule.hint else message
