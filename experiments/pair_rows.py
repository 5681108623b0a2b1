"""Chosen candidates -> rows to train on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.records import Row
from experiments.tokenizing import completion_ids
from po.data.forms import Text


@dataclass(frozen=True)
class Candidate:
    """A completion that can be chosen.

    Attributes:
        score: by the pairs' metric; larger is better, whatever the metric's own direction.
        origin: ``sample`` or ``reference``.
    """

    text: str
    score: float
    origin: str


@dataclass(frozen=True)
class PairRows:
    """Makes the rows of ``pairs.jsonl``.

    Attributes:
        tokenizer: of the corpus.
        prompts: what each row's prompt was made of, by id: a text, or messages.
        ranked: keep the token ids of all candidates, best first; of equal scores the first.
        encoder_decoder: whether the model is one.
    """

    tokenizer: Any
    prompts: Mapping[str, Text]
    ranked: bool = False
    encoder_decoder: bool = False

    def row(
        self, row: Row, chosen: Candidate, rejected: Candidate, candidates: Sequence[Candidate]
    ) -> dict[str, Any]:
        """One pair.

        Args:
            row: the prompt.
            chosen: the better candidate.
            rejected: the worse one.
            candidates: all of them, best first.
        """
        pair = {
            "id": row.id,
            "source": row.source,
            "references": list(row.references),
            "prompt": row.prompt,
            "prompt_ids": list(row.prompt_ids),
            "prompt_hash": row.prompt_hash,
            "chosen": chosen.text,
            "rejected": rejected.text,
            "chosen_ids": self._ids(row, chosen),
            "rejected_ids": self._ids(row, rejected),
            "chosen_score": chosen.score,
            "rejected_score": rejected.score,
            "candidates": [{"text": c.text, "score": c.score, "origin": c.origin} for c in candidates],
        }
        return pair | (self._ranking(row, candidates) if self.ranked else {})

    def _ranking(self, row: Row, candidates: Sequence[Candidate]) -> dict[str, Any]:
        first = list({candidate.score: candidate for candidate in reversed(candidates)}.values())[::-1]
        return {
            "candidates_ids": [self._ids(row, candidate) for candidate in first],
            "candidates_scores": [candidate.score for candidate in first],
        }

    def _ids(self, row: Row, candidate: Candidate) -> list[int]:
        prompt = self.prompts.get(row.id, row.prompt)
        return completion_ids(self.tokenizer, prompt, candidate.text, encoder_decoder=self.encoder_decoder)
