"""The one trainer of preference methods: transformers' Trainer with a loss from the table. No method is named in it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from po.logps import attach_engine, completion_logps
from po.method import Method


class PreferenceTrainer(Trainer):  # type: ignore[misc]
    """Trains a causal language model on pairs with a method of ``po.methods``.

    The gradient of an optimizer step is that of the mean loss over its pairs, whatever the split into micro-batches and
    processes; a ``token_batch`` likelihood term is normalized by the chosen tokens of the whole step.

    Args:
        method: entry of the table.
        params: hyperparameters and options, as ``method.check_params`` returns them.
    """

    def __init__(self, *args: Any, method: Method, params: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.params = method, dict(params)
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = False
        self._logged: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._step_counts: Tensor | None = None
        attach_engine(self.model)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], None]:
        """The micro-batches of an optimizer step, after counting their pairs and chosen tokens over all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = sum((_counts(batch) for batch in samples), torch.zeros(2)).to(device)
        self._step_counts = self.accelerator.reduce(counts, reduction="sum")
        return samples, None

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Share of this micro-batch in the step's mean loss."""
        training = model.training
        counts = self._step_counts if training and self._step_counts is not None else _counts(inputs)
        n_pairs, n_tokens = counts.tolist()
        values = self._loss_inputs(model, inputs, n_pairs, n_tokens)
        losses = self.method.loss(**{name: values[name] for name in self.method.inputs}, **self.method.loss_arguments(self.params))
        self._record(values, losses, "train" if training else "eval")
        loss = losses.sum() / n_pairs
        if training:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, {"losses": losses.detach()}) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """The loss of an evaluation batch, its own pairs and tokens the denominators; there are no predictions."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def _loss_inputs(self, model: Any, inputs: dict[str, Tensor], n_pairs: float, n_tokens: float) -> dict[str, Tensor]:
        sums, lengths = completion_logps(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
        chosen, rejected = sums.chunk(2)
        chosen_length, rejected_length = lengths.chunk(2)
        values = {
            "policy_chosen": chosen,
            "policy_rejected": rejected,
            **{name: value for name, value in inputs.items() if name.startswith("reference_") or name.endswith("_score")},
        }
        values |= {"summed_chosen": chosen.detach(), "summed_rejected": rejected.detach()}
        if self.method.logps_for(self.params) == "mean":
            for name in [key for key in values if key.startswith(("policy_", "reference_"))]:
                values[name] = values[name] / (chosen_length if name.endswith("chosen") else rejected_length)
        values |= {"chosen_length": chosen_length, "rejected_length": rejected_length}
        if self.method.needs_nll:
            values["chosen_nll"] = self._chosen_nll(chosen, chosen_length, n_pairs, n_tokens)
        return values

    def _chosen_nll(self, summed: Tensor, length: Tensor, n_pairs: float, n_tokens: float) -> Tensor:
        """One value per pair, such that its mean over the step's pairs is the reduction that was asked for."""
        scale = {"token_batch": n_pairs / n_tokens, "seq_mean": 1 / length, "seq_sum": 1.0}
        return -summed * scale[str(self.params["nll_reduction"])]

    @torch.no_grad()
    def _record(self, values: Mapping[str, Tensor], losses: Tensor, split: str) -> None:
        log = self._logged[split]
        if self.method.rewards is not None:
            chosen, rejected = self.method.rewards(values, self.params)
            log["rewards/chosen"] += chosen.tolist()
            log["rewards/rejected"] += rejected.tolist()
            log["rewards/margins"] += (chosen - rejected).tolist()
            log["rewards/accuracies"] += (chosen > rejected).float().tolist()
        for side in ("chosen", "rejected"):
            log[f"logps/{side}"] += values[f"summed_{side}"].tolist()
            log[f"logps_mean/{side}"] += (values[f"summed_{side}"] / values[f"{side}_length"]).tolist()
            if f"reference_{side}" in values:
                log[f"logratio/{side}"] += (values[f"policy_{side}"] - values[f"reference_{side}"]).tolist()
        if self.method.needs_nll:
            log["nll_loss"] += values["chosen_nll"].tolist()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the means since the last log, over all processes, under the names that TRL uses."""
        split = "eval" if any(key.startswith("eval_") for key in logs) else "train"
        prefix = "eval_" if split == "eval" else ""
        names = sorted(self._logged[split])
        if names and ("loss" in logs or split == "eval"):
            sums = torch.tensor([[sum(self._logged[split][n]), float(len(self._logged[split][n]))] for n in names], dtype=torch.float64)
            total = self.accelerator.reduce(sums.to(self.args.device), reduction="sum").cpu()
            logs |= {prefix + name: (total[i, 0] / total[i, 1]).item() for i, name in enumerate(names)}
            self._logged[split].clear()
        super().log(logs, *args, **kwargs)


def _counts(batch: Mapping[str, Tensor]) -> Tensor:
    """(pairs, chosen tokens) of a collated batch."""
    mask = batch["completion_mask"]
    pairs = len(mask) // 2
    return torch.stack([torch.tensor(float(pairs)), mask[:pairs].sum().float().cpu()])
