"""Softmax arithmetic over a vocabulary that comes in parts."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Sums:
    """Running sums over the vocabulary of exp(logit - largest logit so far) and its like, (tokens,) each."""

    def __init__(self, hidden: Tensor, targets: Tensor, dtype: torch.dtype, names: Sequence[str]) -> None:
        def zeros() -> Tensor:
            return torch.zeros(len(hidden), dtype=dtype, device=hidden.device)

        self._targets, self._names = targets, tuple(names)
        self._largest = zeros().fill_(torch.finfo(dtype).min / 2)  # finite: times 0 it is 0
        self.total, self.target, self._squares, self._weighted, self._plain = (zeros() for _ in range(5))

    def add(self, logits: Tensor, tokens: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Takes up a tile, which is overwritten.

        Returns:
            What sums so far shrank by, (tokens of the tile,); the exponentials of the tile.
        """
        found, inside = inside_of(self._targets[tokens], columns)
        self.target[tokens] += logits.gather(1, found).squeeze(1).masked_fill_(~inside, 0)
        if "mean_logit" in self._names:
            self._plain[tokens] += logits.sum(dim=1)
        before = self._largest[tokens]
        after = torch.maximum(before, logits.amax(dim=1))
        shift = before - after
        shrunk = shift.exp()
        logits.sub_(after.unsqueeze(1))
        if "entropy" in self._names:
            exponentials = logits.exp()
            weighted = (self._weighted[tokens] + shift * self.total[tokens]) * shrunk
            self._weighted[tokens] = weighted + logits.mul_(exponentials).sum(dim=1)
        else:
            exponentials = logits.exp_()
        if "collision" in self._names:
            self._squares[tokens] = self._squares[tokens] * shrunk.square() + exponentials.square().sum(dim=1)
        self.total[tokens] = self.total[tokens] * shrunk + exponentials.sum(dim=1)
        self._largest[tokens] = after
        return shrunk, exponentials

    def largest(self, tokens: slice) -> Tensor:
        """The largest logit so far."""
        return self._largest[tokens].clone()

    def log_total(self) -> Tensor:
        """Logarithm of the sum of the exponentials of a token's logits."""
        return self._largest + self.total.log()

    def values(self, vocabulary: int) -> dict[str, Tensor]:
        """The values that were asked for, in the units of ``token_statistics``."""
        of = {
            "logps": lambda: self.target - self.log_total(),
            "collision": lambda: self._squares.log() - 2 * self.total.log(),
            "entropy": lambda: (self.total.log() - self._weighted / self.total) / math.log(vocabulary),
            "mean_logit": lambda: self._plain / vocabulary,
        }
        return {name: of[name]() for name in self._names}


class Slopes:
    r"""Derivative of a loss by logits: ``target`` at the target, and p (a + b p + c log p) everywhere.

    With p the probabilities of a token, C = log Σ p² and H the entropy: dC/dx = 2 p² exp(-C) - 2 p, and
    dH/dx = -p (log p + H) in nats.
    """

    def __init__(
        self,
        log_total: Tensor,
        values: Mapping[str, Tensor],
        slopes: Mapping[str, Tensor],
        vocabulary: int,
    ) -> None:
        self._log_total, dtype = log_total, log_total.dtype
        zero = torch.zeros_like(log_total)
        self._target = slopes["logps"].to(dtype) if "logps" in slopes else zero
        self._plain = -self._target
        self._square = self._log = None
        if "collision" in slopes:
            slope = slopes["collision"].to(dtype)
            self._plain = self._plain - 2 * slope
            self._square = 2 * slope * torch.exp(-values["collision"])
        if "entropy" in slopes:
            slope = slopes["entropy"].to(dtype)
            self._plain = self._plain - slope * values["entropy"]
            self._log = -slope / math.log(vocabulary)

    def of_logits(self, logits: Tensor, tokens: slice, found: Tensor, inside: Tensor) -> Tensor:
        """Makes the logits of a tile their derivatives."""
        logps = logits.sub_(self._log_total[tokens].unsqueeze(1))
        if self._log is None:
            return self._at_target(self._times(logps.exp_(), None, tokens), tokens, found, inside)
        return self._at_target(self._times(logps.exp(), logps, tokens), tokens, found, inside)

    def of_exponentials(
        self, tile: Tensor, largest: Tensor, tokens: slice, found: Tensor, inside: Tensor
    ) -> Tensor:
        """Makes exponentials of logits less ``largest`` derivatives by these; not with an entropy."""
        scale = torch.exp(largest - self._log_total[tokens])
        if self._square is None:
            slope = tile.mul_((scale * self._plain[tokens]).unsqueeze(1))
        else:
            slope = self._times(tile.mul_(scale.unsqueeze(1)), None, tokens)
        return self._at_target(slope, tokens, found, inside)

    def _times(self, chances: Tensor, logps: Tensor | None, tokens: slice) -> Tensor:
        factor = self._plain[tokens].unsqueeze(1)
        if logps is not None and self._log is not None:
            factor = torch.addcmul(factor, logps, self._log[tokens].unsqueeze(1))
        if self._square is not None:
            factor = torch.addcmul(factor, chances, self._square[tokens].unsqueeze(1))
        return chances.mul_(factor)

    def _at_target(self, slope: Tensor, tokens: slice, found: Tensor, inside: Tensor) -> Tensor:
        return slope.scatter_add_(1, found, self._target[tokens].masked_fill(~inside, 0).unsqueeze(1))


def inside_of(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where targets stand among some columns, (tokens, 1), and whether they do, (tokens,)."""
    found = targets - columns.start
    inside = (found >= 0) & (found < columns.stop - columns.start)
    return found.clamp(0, columns.stop - columns.start - 1).unsqueeze(1), inside
