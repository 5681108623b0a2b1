"""How rows are encoded: limits in tokens, and what is done with rows that cannot be learned from."""

from dataclasses import dataclass
from typing import Literal

from po.data.forms import FORMS, Form
from po.data.truncate import TRUNCATIONS, Truncation
from po.faults import InputFault
from po.methods.hyperparameters import nearest

OverLong = Literal["drop", "truncate", "error"]
Choice = Literal["drop", "keep", "error"]
Empty = Literal["drop", "error"]

CHOICES = {
    "truncation": TRUNCATIONS,
    "over_long": ("drop", "truncate", "error"),
    "equal_pairs": ("drop", "keep", "error"),
    "duplicates": ("keep", "drop", "error"),
    "empty": ("error", "drop"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """What every row of a data set is put through. Whatever is dropped, cut or kept in spite of is counted.

    Attributes:
        max_prompt_length: in tokens; None for no limit.
        max_completion_length: in tokens, the EOS counted; None for no limit.
        max_length: prompt and one completion together, in tokens; None for no limit. Where rows are cut, the
            prompt gives way to the longest completion, but no further than to half of it.
        truncation: which end of a prompt is kept where it is cut.
        over_long: rows over a limit.
        equal_pairs: rows whose chosen and rejected ids (or whose candidates) are all the same.
        duplicates: rows whose ids another row had before.
        empty: rows with a prompt or completion without text; these cannot be kept.
        encoder_decoder: whether the model is one.
        form: what the rows have to be; None: what the first one is.

    Raises:
        InputFault: a value that is none of those allowed.
    """

    max_prompt_length: int | None = None
    max_completion_length: int | None = None
    max_length: int | None = None
    truncation: Truncation = "keep_end"
    over_long: OverLong = "drop"
    equal_pairs: Choice = "drop"
    duplicates: Choice = "keep"
    empty: Empty = "error"
    encoder_decoder: bool = False
    form: Form | None = None

    def __post_init__(self) -> None:
        """Refuses what no type checker has seen."""
        for name, allowed in {**CHOICES, "form": (None, *FORMS)}.items():
            value = getattr(self, name)
            if value not in allowed:
                known = [str(choice) for choice in allowed if choice is not None]
                guess = nearest(str(value), known)
                raise InputFault(f"{name} is '{value}'{guess} It is one of: {', '.join(known)}.")
        for name, least in {"max_prompt_length": 1, "max_completion_length": 1, "max_length": 2}.items():
            limit = getattr(self, name)
            if limit is not None and limit < least:
                raise InputFault(f"{name} is {limit}; it is at least {least}, in tokens")
