"""The one trainer of preference methods: transformers' Trainer with a loss from the table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from po.logps import attach_engine, completion_logps
from po.method import Method

_SIDES = ("chosen", "rejected")


class RunningMeans:
    """Means of values by name, over all that was added since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        """Adds one value per pair."""
        total = values.detach().double().sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] += len(values)

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes, which must have added the same names; nothing is kept."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        counts = sums.new_tensor([self._counts[name] for name in names])
        totals = accelerator.reduce(torch.stack([sums, counts]), reduction="sum")
        self._sums.clear()
        self._counts.clear()
        return dict(zip(names, (totals[0] / totals[1]).tolist(), strict=True))


class PreferenceTrainer(Trainer):  # type: ignore[misc]
    """Trains a causal language model on pairs with a method of ``po.methods``.

    The gradient of an optimizer step is that of the mean loss over its pairs, whatever the split into
    micro-batches and processes; a ``token_batch`` likelihood term is normalized by the chosen tokens of the
    whole step. The logged loss is that mean, averaged over the steps since the last log. With several
    processes, accelerate fills the last batch of an epoch with pairs from its beginning.

    The log has what TRL logs, under its names: ``rewards/*`` (of log-probabilities as the loss sees them,
    summed or averaged), ``logps/*`` (summed), ``nll_loss``; and ``logps_mean/*`` (per token), ``logratio/*``
    (policy - reference, summed) and ``logratio_mean/*`` (per token). Where TRL logs summed rewards for a
    method that averages (IPO), they are its ``tau`` times ``logratio/*``.

    Args:
        method: entry of the table.
        params: hyperparameters and options, as ``method.check_params`` returns them.
    """

    def __init__(self, *args: Any, method: Method, params: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.params = method, dict(params)
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = False
        self._means = {"train": RunningMeans(), "eval": RunningMeans()}
        self._step_counts = [0, 0]  # pairs and chosen tokens of the optimizer step
        attach_engine(self.model)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The micro-batches of an optimizer step, after counting its pairs and tokens over all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.stack([_counts(batch) for batch in samples]).sum(dim=0).to(device)
        self._step_counts = self.accelerator.reduce(counts, reduction="sum").tolist()
        return samples, None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Share of this micro-batch in the step's mean loss; in evaluation, the mean loss of the batch."""
        counted: list[int] = self._step_counts if model.training else _counts(inputs).tolist()
        n_pairs, n_tokens = counted
        # Gradients and logged losses are averaged over processes.
        scale = self.accelerator.num_processes if model.training else 1
        masks = {name: inputs[name] for name in ("input_ids", "attention_mask", "completion_mask")}
        policy, lengths = completion_logps(model, **masks)
        sums = {f"policy_{side}": part for side, part in zip(_SIDES, policy.chunk(2), strict=True)}
        sums |= {name: inputs[name] for side in _SIDES if (name := f"reference_{side}") in inputs}
        counts = {f"{side}_length": part for side, part in zip(_SIDES, lengths.chunk(2), strict=True)}
        scores = {name: inputs[name] for side in _SIDES if (name := f"{side}_score") in inputs}
        values = {**self._by_rule(sums, counts), **counts, **scores}
        if self.method.needs_nll:
            values["chosen_nll"] = self._chosen_nll(
                sums["policy_chosen"], counts["chosen_length"], n_pairs, n_tokens
            )
        taken = {name: values[name] for name in self.method.inputs}
        losses = self.method.loss(**taken, **self.method.loss_arguments(self.params))
        self._record(self._means["train" if model.training else "eval"], values, sums, counts)
        loss = losses.sum() * (scale / n_pairs)
        return (loss, {"losses": losses.detach()}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """The loss of an evaluation batch, divided by its own pairs and tokens; there are no predictions."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def _by_rule(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Summed log-probabilities as the method takes them."""
        if self.method.logps_for(self.params) == "sum":
            return dict(sums)
        return {name: value / counts[f"{name.partition('_')[2]}_length"] for name, value in sums.items()}

    def _chosen_nll(self, summed: Tensor, length: Tensor, n_pairs: int, n_tokens: int) -> Tensor:
        """One value per pair; their mean over the step's pairs is the reduction that was asked for."""
        scale: dict[str, Any] = {"token_batch": n_pairs / n_tokens, "seq_mean": 1 / length, "seq_sum": 1.0}
        nll: Tensor = -summed * scale[str(self.params["nll_reduction"])]
        return nll

    def _record(
        self,
        means: RunningMeans,
        values: Mapping[str, Tensor],
        sums: Mapping[str, Tensor],
        counts: Mapping[str, Tensor],
    ) -> None:
        """Notes a micro-batch's values for the log."""
        if self.method.rewards is not None:
            chosen, rejected = self.method.rewards(values, self.params)
            means.add("rewards/chosen", chosen)
            means.add("rewards/rejected", rejected)
            means.add("rewards/margins", chosen - rejected)
            means.add("rewards/accuracies", (chosen > rejected).float())
        for side in _SIDES:
            summed, length = sums[f"policy_{side}"], counts[f"{side}_length"]
            means.add(f"logps/{side}", summed)
            means.add(f"logps_mean/{side}", summed / length)
            if f"reference_{side}" in sums:
                ratio = summed - sums[f"reference_{side}"]
                means.add(f"logratio/{side}", ratio)
                means.add(f"logratio_mean/{side}", ratio / length)
        if "chosen_nll" in values:
            means.add("nll_loss", values["chosen_nll"])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the means since the last log, over all processes."""
        evaluated = any(key.startswith("eval_") for key in logs)
        if evaluated:
            logs |= {
                f"eval_{name}": mean for name, mean in self._means["eval"].take(self.accelerator).items()
            }
        elif "loss" in logs:
            logs |= self._means["train"].take(self.accelerator)
        super().log(logs, *args, **kwargs)


def _counts(batch: Mapping[str, Tensor]) -> Tensor:
    """(pairs, chosen tokens) of a collated batch."""
    chosen = batch["completion_mask"].chunk(2)[0]
    return torch.stack([chosen.new_tensor(len(chosen), dtype=torch.long), chosen.sum()])
