"""A model's answers -> the inputs of a loss, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from po.engine.token_values import Asked
from po.methods.logp_rules import TOKEN_RULES
from po.methods.method import Method
from po.training.layouts import COUNTED, LAYOUTS, Batch, Layout

Scores = Mapping[str, Tensor]


@dataclass(frozen=True)
class StepCounts:
    """Examples and chosen tokens of a whole optimizer step, over all micro-batches and processes."""

    examples: float
    tokens: float


def once(values: Tensor, batch: Batch) -> Tensor:
    """One value per example, (examples,); 0 for those that count elsewhere already."""
    return values.masked_fill(~batch[COUNTED], 0) if COUNTED in batch else values


class Quantities:
    """What a method's loss needs, and how it is made of what the models answer.

    Args:
        method: entry of the table, or one put together.
        params: hyperparameters and options, as ``method.check_params`` returns them.

    Attributes:
        asked: what the policy has to answer.
        asked_reference: what the reference has to answer.
        layout: where completions stand in a batch.
    """

    def __init__(self, method: Method, params: Mapping[str, Any]) -> None:
        self.method, self.params = method, params
        self.layout: Layout = LAYOUTS[method.data]
        self._needed = method.needed(params)
        self._rule = method.logps_for(params)
        tokens = self._rule in TOKEN_RULES
        kl = any(name.endswith("_kl") for name in self._needed)
        self.asked = Asked(
            collision=any(name.endswith("_collision") for name in self._needed),
            kl=kl,
            tokens=tokens,
            prompt=params.get("nll_scope") == "prompt_and_completion",
        )
        self.asked_reference = Asked(
            entropy="reference_entropy" in self._needed, tokens=tokens, distributions=kl
        )

    def of(
        self,
        batch: Batch,
        policy: Scores,
        reference: Scores | None,
        lengths: Tensor,
        step: StepCounts,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The inputs of the loss, but for what its state provides.

        Args:
            batch: as the collator made it.
            policy: its answer, one value per row.
            reference: its answer, or None.
            lengths: tokens of the completions, (rows,).
            step: counts of the optimizer step.
            generator: for rules that draw tokens.
        """
        weights = self._weights(lengths, batch, generator)
        found = self._named("policy", policy, lengths, weights, batch)
        if reference is not None:
            found |= self._named("reference", reference, lengths, weights, batch)
        if "reference_entropy" in self._needed and reference is not None:
            sides = self.layout.split(reference["entropy"], batch)
            found["reference_entropy"] = torch.stack(list(sides.values())).mean(dim=0)
        for side, value in self.layout.split(lengths, batch).items():
            found[self.layout.join("", "length", side)] = value
        for name in ("collision", "kl"):
            if name in policy:
                for side, value in self.layout.split(policy[name], batch).items():
                    found[self.layout.join("", name, side)] = value
        if self.method.needs_nll:
            found["chosen_nll"] = self._chosen_nll(batch, policy, lengths, step)
        return {name: batch[name] for name in self._needed if name in batch} | found

    def _named(
        self, prefix: str, scores: Scores, lengths: Tensor, weights: Tensor | None, batch: Batch
    ) -> dict[str, Tensor]:
        """Log-probabilities by the method's rule, and averaged ones under ``_mean``."""
        mean = scores["logps"] / lengths
        if weights is not None:
            value = (scores["token_logps"] * weights).sum(dim=1)
        else:
            value = mean if self._rule == "mean" else scores["logps"]
        found = {}
        for suffix, values in (("", value), ("mean", mean)):
            for side, part in self.layout.split(values, batch).items():
                found[self.layout.join(prefix, suffix, side)] = part
        return found

    def _weights(self, lengths: Tensor, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """How much each token counts, (rows, tokens), under a rule that weighs tokens."""
        if self._rule not in TOKEN_RULES:
            return None
        rule = TOKEN_RULES[self._rule]
        options = {name: float(self.params[name]) for name in rule.ranges}
        chosen, rejected = self.layout.split(lengths, batch).values()
        sides = [
            rule.weigh(own, other, generator, **options)
            for own, other in ((chosen, rejected), (rejected, chosen))
        ]
        longest = int(lengths.max())
        return torch.cat([torch.nn.functional.pad(s, (0, longest - s.shape[1])) for s in sides])

    def _chosen_nll(self, batch: Batch, policy: Scores, lengths: Tensor, step: StepCounts) -> Tensor:
        """One value per example; their mean over the step's examples is the reduction that was asked for."""
        summed = self.layout.split(policy["logps"], batch)["chosen"]
        length = self.layout.split(lengths, batch)["chosen"]
        if self.asked.prompt:
            summed = summed + self.layout.split(policy["prompt_logps"], batch)["chosen"]
            length = length + self.layout.split(policy["prompt_length"], batch)["chosen"]
        scale: dict[str, Any] = {
            "token_batch": step.examples / step.tokens,
            "seq_mean": 1 / length,
            "seq_sum": 1.0,
        }
        nll: Tensor = -summed * scale[str(self.params["nll_reduction"])]
        return nll

    def counts(self, batch: Batch) -> StepCounts:
        """Examples, and tokens that the likelihood counts, of one batch."""
        mask = batch["completion_mask"]
        if self.asked.prompt:
            mask = batch["attention_mask"].bool()
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) > 0)
        chosen = self.layout.split(mask.sum(dim=1), batch).get("chosen")
        tokens = 0 if chosen is None else int(once(chosen, batch).sum())
        examples = int(batch[COUNTED].sum()) if COUNTED in batch else self.layout.examples(batch)
        return StepCounts(examples, tokens)
