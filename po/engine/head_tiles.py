"""A plain head in tiles: the logits of some tokens over a part of the vocabulary, one tile at a time.

Two passes over the tiles give values and gradients. The first sums up what the values need, as a softmax over
a stream does: everything is relative to the largest logit so far. The second makes each tile its gradient, in
place, and multiplies it into the gradients of hidden states and weights. Between the two a number of tiles is
kept, as many as fit; the others are computed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from po.engine.head_sums import Slopes, Sums, inside_of
from po.engine.heads import PlainHead

VALUES = ("logps", "collision", "entropy", "mean_logit")  # what can be had in tiles
_TILE_BYTES = {"cpu": 8 * 2**20}  # about what the caches of a processor hold
_TILE_BYTES_ELSEWHERE = 32 * 2**20
_STEP = 32  # of widths; to multiply over 1638 columns takes half as long again as over 1600
_NARROWEST = 512  # columns of a tile, unless the vocabulary has fewer

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Measured:
    """What the first pass found, one number per token.

    Attributes:
        values: by name, as in ``po.engine.logps.token_statistics``.
        log_total: logarithm of the sum of the exponentials of a token's logits.
        direction: gradient of each token's log-probability by its hidden state, if asked for.
    """

    values: dict[str, Tensor]
    log_total: Float[Tensor, " tokens"]
    direction: Float[Tensor, "tokens width"] | None = None


@dataclass(frozen=True)
class Kept:
    """A tile between the passes.

    Attributes:
        tile: its logits before the cap, or exponentials of what they lie below ``largest``.
        largest: (tokens,), or None where these are logits.
    """

    tile: Tensor
    largest: Tensor | None = None


class Tiles:
    """The logits of some tokens, of which only tiles ever exist.

    Args:
        hidden: last hidden state before each target, (tokens, width).
        targets: token ids, (tokens,).
        head: its weights.
        dtype: of the matrix products; all else is in float32, or in float64 after products in float64.
        room: bytes that tiles may take between the passes.
        kept: tiles of an earlier first pass.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "tokens width"],
        targets: Int[Tensor, " tokens"],
        head: PlainHead,
        dtype: torch.dtype,
        room: int = 0,
        kept: dict[int, Kept] | None = None,
    ) -> None:
        self._hidden, self._targets, self._head = hidden.to(dtype), targets, head
        self._dtype, self.wide = dtype, torch.promote_types(dtype, torch.float32)
        self._room = room
        self.kept = {} if kept is None else kept

    def measure(self, names: Sequence[str], direction: bool = False) -> Measured:
        """The first pass.

        Args:
            names: some of ``VALUES``.
            direction: find ``Measured.direction`` on the way; no tile is kept then.
        """
        sums = Sums(self._hidden, self._targets, self.wide, names)
        ahead = (
            torch.zeros(self._hidden.shape, dtype=self.wide, device=self._hidden.device)
            if direction
            else None
        )
        room = 0 if direction else self._room
        # their gradients need no more than the exponentials, which are then not taken twice
        ready = self._dtype == self.wide and self._head.cap is None and "entropy" not in names
        for place, tokens, columns, weight in self._tiles():
            raw = self._raw(tokens, columns, weight)
            keep = raw.nbytes <= room
            room -= raw.nbytes if keep else 0
            overwritten = keep and not ready and raw.dtype == self.wide
            logits = self._capped(raw.clone() if overwritten else raw)
            bend = self._bend(logits) if direction else None
            shrunk, exponentials = sums.add(logits, tokens, columns)
            if keep:
                self.kept[place] = Kept(exponentials, sums.largest(tokens)) if ready else Kept(raw)
            if ahead is not None:
                exponentials = exponentials if bend is None else exponentials.mul_(bend)
                self._add_product(
                    ahead[tokens].mul_(shrunk.unsqueeze(1)), exponentials.to(self._dtype), weight
                )
        return Measured(sums.values(self._head.vocabulary), sums.log_total(), self._direction(ahead, sums))

    def gradients(
        self,
        measured: Measured,
        slopes: Mapping[str, Tensor],
        needed: tuple[bool, bool, bool],
        add_to: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Gradients:
        """The second pass.

        Args:
            measured: of the first.
            slopes: derivative of the loss by each value that it depends on, (tokens,) each, by name.
            needed: which gradients: hidden states, weight, bias.
            add_to: gradients of weight and bias that other tokens have left, in the wide dtype; added to in
                place.

        Returns:
            Gradients of hidden states, weight and bias, where needed.
        """
        rule = Slopes(measured.log_total, measured.values, slopes, self._head.vocabulary)
        fresh = add_to[0] is None
        hidden, weights, bias = self._accumulators(needed, *add_to)
        for place, tokens, columns, weight in self._tiles():
            kept = self.kept.pop(place, None)
            where = inside_of(self._targets[tokens], columns)
            if kept is not None and kept.largest is not None:
                slope = rule.of_exponentials(kept.tile, kept.largest, tokens, *where)
            else:
                logits = self._capped(self._raw(tokens, columns, weight) if kept is None else kept.tile)
                bend = self._bend(logits)
                slope = rule.of_logits(logits, tokens, *where)
                slope = slope if bend is None else slope.mul_(bend)
            if bias is not None:
                bias[columns] += slope.sum(dim=0)
            slope = slope.to(self._dtype)
            if hidden is not None:
                self._add_product(hidden[tokens], slope, weight)
            if weights is not None:
                first = fresh and tokens.start == 0
                self._add_product(weights[columns], slope.t(), self._hidden[tokens], first)
        return hidden, weights, bias

    def _accumulators(
        self, needed: tuple[bool, bool, bool], weights: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        def blank(like: Tensor, dtype: torch.dtype) -> Tensor:
            return torch.empty(like.shape, dtype=dtype, device=like.device)

        hidden = blank(self._hidden, self.wide).zero_() if needed[0] else None
        if needed[1] and weights is None:
            # where all tokens stand in one tile, its product is whole and can be rounded at once
            whole = self._block >= len(self._hidden) > 0
            weights = blank(self._head.weight, self._head.weight.dtype if whole else self.wide)
        if needed[2] and bias is None and self._head.bias is not None:
            bias = blank(self._head.bias, self.wide).zero_()
        return hidden, weights if needed[1] else None, bias if needed[2] else None

    @property
    def _elements(self) -> int:
        return _TILE_BYTES.get(self._hidden.device.type, _TILE_BYTES_ELSEWHERE) // 4

    @property
    def _block(self) -> int:
        """How many tokens a tile has at most."""
        return max(1, min(len(self._hidden), self._elements // min(_NARROWEST, self._head.vocabulary)))

    def _tiles(self) -> Iterator[tuple[int, slice, slice, Tensor]]:
        """Number, tokens, columns and weights of each tile; tiles of the same columns follow one another."""
        block, vocabulary, place = self._block, self._head.vocabulary, 0
        n_parts = -(-vocabulary // max(1, self._elements // block))
        width = _STEP * -(-vocabulary // (n_parts * _STEP))  # all about equally wide
        for left in range(0, vocabulary, width):
            columns = slice(left, min(left + width, vocabulary))
            weight = self._head.weight[columns].to(self._dtype)
            for top in range(0, len(self._hidden), block):
                yield place, slice(top, min(top + block, len(self._hidden))), columns, weight
                place += 1

    def _raw(self, tokens: slice, columns: slice, weight: Tensor) -> Tensor:
        bias = None if self._head.bias is None else self._head.bias[columns].to(self._dtype)
        return F.linear(self._hidden[tokens], weight, bias)

    def _capped(self, raw: Tensor) -> Tensor:
        """The logits in the wide dtype, in place where they have it already."""
        logits, cap = raw.to(self.wide), self._head.cap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def _bend(self, logits: Tensor) -> Tensor | None:
        """Derivative of the capped logits by those before the cap."""
        return None if self._head.cap is None else 1 - (logits / self._head.cap).square_()

    def _add_product(self, into: Tensor, left: Tensor, right: Tensor, first: bool = False) -> None:
        """``into += left @ right``; the first time it is set instead."""
        if into.dtype == left.dtype:
            into.addmm_(left, right, beta=0.0 if first else 1.0)
        elif first:
            into.copy_(left @ right)
        else:
            into.add_(left @ right)

    def _direction(self, ahead: Tensor | None, sums: Sums) -> Tensor | None:
        """The target's weights less the expected ones."""
        if ahead is None:
            return None
        mine = self._head.weight[self._targets].to(self.wide)
        bend = self._bend(sums.target)
        mine = mine if bend is None else mine.mul_(bend.unsqueeze(1))
        return mine.sub_(ahead.div_(sums.total.unsqueeze(1)))
