"""The wording of configuration faults: where, which value, what is allowed, the nearest known name."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One fault of a manifest.

    Attributes:
        where: keys and list indices from the top of the file.
        message: the value, what is wrong with it, what to do.
        line: line in the file, counted from 1, if it is known.
    """

    where: tuple[str | int, ...]
    message: str
    line: int | None = None

    @property
    def place(self) -> str:
        """``methods.dpo.grid.beta[1]``."""
        text = ""
        for part in self.where:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        return text


class ManifestError(ValueError):
    """Every fault of a manifest at once."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        ordered = sorted(problems, key=lambda p: (p.line or 0, p.place))
        self.problems = tuple(dict.fromkeys(ordered))
        count = len(self.problems)
        lines = [f"{path}: {count} fault{'s' if count != 1 else ''}, nothing was started"]
        for problem in self.problems:
            at = f"{path}:{problem.line}" if problem.line else str(path)
            lines.append(f"  {at}: {problem.place or 'the file'}\n      {problem.message}")
        super().__init__("\n".join(lines))


def nearest(name: object, known: Iterable[object]) -> str:
    """The phrase ``did you mean 'simpo'? Known: cpo, dpo, simpo.``, as the end of a message."""
    choices = sorted(map(str, known))
    return offer(name, choices, f"known: {', '.join(choices) or 'none'}.")


def offer(name: object, known: Iterable[str], rest: str) -> str:
    """What follows a semicolon: the nearest name as a question, then the rest as a sentence of its own.

    Where no name is near, the rest alone; it is given in lower case.
    """
    hint = did_you_mean(name, known)
    return hint + rest[0].upper() + rest[1:] if hint else rest


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The phrase ``did you mean 'simpo'?`` and a blank, or nothing where no name is near."""
    by_lower_case = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    return f"did you mean '{by_lower_case[close[0]]}'? " if close else ""
