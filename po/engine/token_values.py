"""Which values of completions are asked for, and how those of tokens become those of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_SUMMED = ("logps", "kl")  # over a completion's tokens; the others are averaged


@dataclass(frozen=True)
class Asked:
    """What a model's answer shall hold, besides ``logps``: the summed log-probability of each completion.

    Attributes:
        collision: ``collision``, the mean over tokens of log Σ p².
        entropy: ``entropy``, the mean over tokens of the entropy in units of log(vocabulary).
        kl: ``kl``, the sum over tokens of KL(reference || p), in nats; not together with ``prompt``, on
            whose tokens the reference's distributions say nothing.
        tokens: ``token_logps``, (rows, tokens), 0 behind the end of a completion.
        prompt: ``prompt_logps``, the summed log-probability of the prompt's tokens but the first, and
            ``prompt_length``, their number. Not for encoder-decoder models.
        distributions: ``distributions``, (completion tokens of the batch, vocabulary), row by row.
        router: ``aux_loss``, the load-balancing loss of a mixture of experts, one number.
        logged: ``entropy`` and ``mean_logit`` (the mean over tokens of the mean logit), without gradients.
            Not for encoder-decoder models.
    """

    collision: bool = False
    entropy: bool = False
    kl: bool = False
    tokens: bool = False
    prompt: bool = False
    distributions: bool = False
    router: bool = False
    logged: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be answered."""
        if self.kl and self.prompt:
            raise ValueError("kl and prompt cannot be asked for together")

    @property
    def names(self) -> tuple[str, ...]:
        """Values of a token's distribution that are needed."""
        return ("logps", *(name for name in ("collision", "entropy", "kl") if getattr(self, name)))

    @property
    def noted(self) -> tuple[str, ...]:
        """Values of a token's distribution that are only looked at."""
        return tuple(name for name in ("entropy", "mean_logit") if self.logged and name not in self.names)

    def together(
        self, parts: Sequence[Mapping[str, Tensor]], order: Int[Tensor, " rows"]
    ) -> dict[str, Tensor]:
        """The values of groups of rows in the order of the batch."""
        found: dict[str, Tensor] = {}
        for name in parts[0]:
            pieces = [part[name] for part in parts]
            if name == "token_logps":
                longest = max(piece.shape[1] for piece in pieces)
                pieces = [torch.nn.functional.pad(p, (0, longest - p.shape[1])) for p in pieces]
            joined = torch.cat(pieces)
            found[name] = joined if name == "distributions" else joined[order]
        return found


def row_values(
    tokens: Mapping[str, Tensor],
    row: Int[Tensor, " tokens"],
    column: Int[Tensor, " tokens"],
    completion: Bool[Tensor, "rows length"],
    asked: Asked,
) -> dict[str, Tensor]:
    """Values of rows out of those of their tokens.

    Args:
        tokens: values by name, one per scored token.
        row: of each scored token.
        column: of each scored token.
        completion: True on completion tokens; a scored token beside them belongs to a prompt.
        asked: what the answer shall hold.
    """
    inside, lengths = completion[row, column], completion.sum(dim=1)
    found = {}
    for name in (*asked.names, *asked.noted):
        value = tokens[name]
        sums = value.new_zeros(len(completion)).index_add(0, row[inside], value[inside])
        found[name] = sums if name in _SUMMED else sums / lengths
    if asked.tokens:
        first = completion.int().argmax(dim=1)
        table = tokens["logps"].new_zeros(len(completion), int(lengths.max()))
        place = (row[inside], (column - first[row])[inside])
        found["token_logps"] = table.index_put(place, tokens["logps"][inside])
    if asked.prompt:
        outside = ~inside
        prompt = tokens["logps"].new_zeros(len(completion))
        found["prompt_logps"] = prompt.index_add(0, row[outside], tokens["logps"][outside])
        found["prompt_length"] = torch.bincount(row[outside], minlength=len(completion))
    if asked.distributions:
        found["distributions"] = tokens["distributions"][inside]
    return found
