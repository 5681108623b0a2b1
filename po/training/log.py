"""What training writes into its log: means over examples, under TRL's names where TRL has one."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from po.training.layouts import CANDIDATES, COUNTED, Batch
from po.training.quantities import Quantities, Scores

_Scores = tuple[Scores, Scores | None, Tensor]
_SIDES = ("chosen", "rejected")
_LOOKED_AT = {"mean_logit": "logits", "entropy": "entropy"}


class RunningMeans:
    """Means of values by name, over all that was added since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        """Adds one value per example; there may be none."""
        total = values.detach().double().sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] += len(values)

    def snapshot(self) -> Callable[[], None]:
        """What takes back all that is added from now on."""
        sums, counts = dict(self._sums), dict(self._counts)

        def restore() -> None:
            self._sums, self._counts = dict(sums), defaultdict(int, counts)

        return restore

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes, which must have added the same names; nothing is kept.

        A name without a value is left out.
        """
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        counts = sums.new_tensor([self._counts[name] for name in names])
        totals = accelerator.reduce(torch.stack([sums, counts]), reduction="sum")
        self._sums.clear()
        self._counts.clear()
        pairs = zip(names, totals[0].tolist(), totals[1].tolist(), strict=True)
        means = {name: total / count for name, total, count in pairs if count}
        if "rewards/margins" not in means and {f"rewards/{side}" for side in _SIDES} <= set(means):
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means


def has_line(args: TrainingArguments, state: TrainerState, *, last_of_epoch: bool) -> bool:
    """Whether the step that is computed ends with a line in the log; the last step counts as one that does.

    Args:
        args: of the training.
        state: before the end of the step. Where ``args`` has a share as ``logging_steps``, it has the number.
        last_of_epoch: the step has the last rows of an epoch.
    """
    step = state.global_step + 1
    if (args.logging_first_step and step == 1) or 0 < state.max_steps <= step:
        return True
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return last_of_epoch
    return bool(args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0)


def record(
    means: RunningMeans,
    quantities: Quantities,
    batch: Batch,
    inputs: Mapping[str, Tensor],
    scores: _Scores,
) -> None:
    """Notes the values of a micro-batch, of the examples that count.

    Args:
        means: where to.
        quantities: of the method.
        batch: as the collator made it.
        inputs: of the loss.
        scores: what policy and reference answered, one value per row, and the completions' lengths.
    """
    if COUNTED in batch:
        batch, inputs, scores = _counted(quantities, batch, inputs, scores)
    policy, reference, lengths = scores
    _record_rewards(means, quantities, inputs)
    values = {"logps": policy["logps"], "logps_mean": policy["logps"] / lengths}
    if reference is not None:
        values["logratio"] = policy["logps"] - reference["logps"]
        values["logratio_mean"] = values["logratio"] / lengths
    values |= {shown: policy[name] for name, shown in _LOOKED_AT.items() if name in policy}
    for name, value in values.items():
        for side, part in zip(_SIDES, quantities.layout.compared(value, batch), strict=True):
            means.add(f"{name}/{side}", part)
    if "chosen_nll" in inputs:
        means.add("nll_loss", inputs["chosen_nll"])
    if quantities.method.diagnostics is not None:
        for name, figures in quantities.method.diagnostics(inputs, quantities.params).items():
            means.add(name, figures)
    for name in ("kl", "reward_shift", "running_margin"):
        if name in inputs:
            means.add(name, inputs[name].reshape(1))


def _counted(
    quantities: Quantities, batch: Batch, inputs: Mapping[str, Tensor], scores: _Scores
) -> tuple[Batch, Mapping[str, Tensor], _Scores]:
    """The same of those examples alone that count; what has no value per example or row stays."""
    examples, (policy, reference, lengths) = batch[COUNTED], scores
    rows = examples[quantities.layout.owners(batch)]

    def taken(values: Mapping[str, Tensor], which: Tensor) -> dict[str, Tensor]:
        return {
            name: value[which] if value.dim() and len(value) == len(which) else value
            for name, value in values.items()
        }

    kept = taken({name: batch[name] for name in ("completion_mask", "desirable") if name in batch}, rows)
    if CANDIDATES in batch:
        kept[CANDIDATES] = batch[CANDIDATES][examples]
    answered = None if reference is None else taken(reference, rows)
    return kept, taken(inputs, examples), (taken(policy, rows), answered, lengths[rows])


def _record_rewards(means: RunningMeans, quantities: Quantities, inputs: Mapping[str, Tensor]) -> None:
    rewards_of = quantities.method.rewards
    if rewards_of is None:
        return
    rewards: Any = rewards_of(inputs, quantities.params)
    if isinstance(rewards, Tensor):
        wanted = inputs["desirable"]
        means.add("rewards/chosen", rewards[wanted])
        means.add("rewards/rejected", rewards[~wanted])
        return
    chosen, rejected = rewards
    means.add("rewards/chosen", chosen)
    means.add("rewards/rejected", rejected)
    means.add("rewards/margins", chosen - rejected)
    means.add("rewards/accuracies", (chosen > rejected).float())
