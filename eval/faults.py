"""The wording of faults that a user can repair: what, where, the nearest known name."""

import difflib
from collections.abc import Iterable


class EvalError(ValueError):
    """A fault of a file, a setting or an installation; its message says where it is and what to do."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> EvalError:
    """The error for a name that stands in no table.

    Args:
        kind: what the name should have been, such as ``"metric"``.
        name: the name as it was given.
        known: every name that would have been right.

    Returns:
        An error such as ``unknown metric 'chrf+'; did you mean 'chrf'? Known: bleu, chrf.``
    """
    choices = sorted(known)
    close = difflib.get_close_matches(str(name).lower(), choices, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return EvalError(f"unknown {kind} {name!r}; {hint}Known: {', '.join(choices)}.")
