"""What losses remember from step to step, or measure over all processes before the loss is taken.

A state gets the loss's inputs of a micro-batch, on every process at once, and adds scalars to them. While
training it may learn from them first; in evaluation it learns nothing. Its content is saved with every
checkpoint. Micro-batches are seen one after the other, as TRL's trainers see them, so with gradient
accumulation the size of a micro-batch matters; methods with a state are therefore marked batch_coupled.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from po.methods.hyperparameters import Choice, Option, ParamValue, Range

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over all processes."""

Inputs = Mapping[str, Tensor]
Values = Mapping[str, ParamValue]


class LossState:
    """Base of all states; itself the state of losses that remember nothing.

    Attributes:
        provides: names of the tensors that it adds to the loss's inputs.
        reads: names of tensors that it needs besides the loss's inputs.
        options: its settings, which the method offers.
    """

    provides: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, Option]] = {}

    def measure(self, inputs: Inputs, values: Values, total: Total, *, training: bool) -> dict[str, Tensor]:
        """The tensors that it provides.

        Args:
            inputs: what the trainer computed for this micro-batch, by name.
            values: hyperparameters and options of the method.
            total: sums over processes; every process must call it equally often.
            training: learn from the inputs first.

        Returns:
            Detached tensors by name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep; the same on every process unless said otherwise."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes up what ``state_dict`` gave."""


def class_rewards(inputs: Inputs, scale: float) -> tuple[Tensor, Tensor]:
    """Rewards of the wanted and of the unwanted completions, detached, float64; either may be empty.

    Args:
        inputs: of a paired or of an unpaired loss.
        scale: reward per nat.
    """
    if "desirable" in inputs:
        rewards = scale * (inputs["policy"] - inputs["reference"]).detach().double()
        return rewards[inputs["desirable"]], rewards[~inputs["desirable"]]
    chosen = inputs["policy_chosen"] - inputs["reference_chosen"]
    rejected = inputs["policy_rejected"] - inputs["reference_rejected"]
    return scale * chosen.detach().double(), scale * rejected.detach().double()


class RunningShift(LossState):
    """The reward shift of BCO: the mean reward of all that training has seen, this micro-batch included.

    ``half_sum`` is the mean of the two class means (the paper's), ``pooled`` the mean over all completions
    (TRL's BCO trainer), ``none`` is 0 (TRL's DPO trainer since 0.29). Sums and counts are float64; a class
    that has not been seen leaves the mean to the other.
    """

    provides = ("reward_shift",)
    options: ClassVar[Mapping[str, Option]] = {
        "delta_rule": Option(
            Choice(("half_sum", "pooled", "none"), "the reward shift: mean of class means, of all, or 0"),
            "half_sum",
        )
    }

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)  # wanted: sum, count; unwanted: sum, count

    def measure(self, inputs: Inputs, values: Values, total: Total, *, training: bool) -> dict[str, Tensor]:
        """The shift, in reward."""
        wanted, unwanted = class_rewards(inputs, float(values["beta"]))
        if training:
            found = torch.stack(
                [part for side in (wanted, unwanted) for part in (side.sum(), side.new_tensor(len(side)))]
            )
            self.sums += total(found).cpu()
        return {"reward_shift": wanted.new_tensor(self._shift(str(values["delta_rule"])))}

    def _shift(self, rule: str) -> float:
        wanted, n_wanted, unwanted, n_unwanted = map(float, self.sums)
        if rule == "half_sum" and n_wanted and n_unwanted:
            return (wanted / n_wanted + unwanted / n_unwanted) / 2
        return 0.0 if rule == "none" else (wanted + unwanted) / max(n_wanted + n_unwanted, 1)

    def state_dict(self) -> dict[str, Any]:
        """The four sums."""
        return {"sums": self.sums.tolist()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes up the four sums."""
        self.sums = torch.tensor(saved["sums"], dtype=torch.float64)


class RunningMargin(LossState):
    """Mean and spread of the DPO margin, which set the beta of beta-DPO and which pairs it keeps.

    Both are exponential means over micro-batches, begun at 0. The filter draws the pairs that are kept with
    probabilities that fall off with the distance from the mean, by a generator of its own.
    """

    provides = ("batch_margin", "running_margin", "kept")
    options: ClassVar[Mapping[str, Option]] = {
        "decay": Option(Range(0, 1, "share of the earlier mean", high_open=True), 0.9),
        "keep": Option(Range(0, 1, "share of the pairs that are kept", low_open=True), 1.0),
    }

    def __init__(self) -> None:
        self.mean, self.spread = 0.0, 0.0
        self.generator = torch.Generator().manual_seed(0)

    def measure(self, inputs: Inputs, values: Values, total: Total, *, training: bool) -> dict[str, Tensor]:
        """Batch mean and running mean of the margin, in nats; 1 for each pair that is kept, else 0."""
        chosen, rejected = class_rewards(inputs, 1.0)
        margin = chosen - rejected
        n, first, second = total(
            torch.stack([margin.new_tensor(len(margin)), margin.sum(), margin.square().sum()])
        ).tolist()
        mean = first / n
        kept = torch.ones_like(margin)
        if training:
            decay = float(values["decay"])
            variance = max(second / n - mean**2, 0.0) * n / max(n - 1, 1)
            self.mean = decay * self.mean + (1 - decay) * mean
            self.spread = decay * self.spread + (1 - decay) * variance**0.5
            if float(values["keep"]) < 1:
                kept = self._kept(margin, float(values["keep"]))
                # beta is set by the pairs that are kept: one that is filtered out must not
                kept_sum, kept_count = total(torch.stack([(kept * margin).sum(), kept.sum()])).tolist()
                mean = kept_sum / kept_count
        return {
            "batch_margin": margin.new_tensor(mean),
            "running_margin": margin.new_tensor(self.mean),
            "kept": kept,
        }

    def _kept(self, margin: Tensor, keep: float) -> Tensor:
        count = max(1, int(keep * len(margin)))
        if count == len(margin) or self.spread == 0:
            return torch.ones_like(margin)
        distance = (margin.cpu() - self.mean) / self.spread
        # Shifted so that the nearest pair weighs 1: far from the mean all weights would underflow to 0.
        weights = torch.exp(-0.5 * (distance.square() - distance.square().min())).clamp(min=1e-12)
        drawn = torch.multinomial(weights, count, replacement=False, generator=self.generator)
        return torch.zeros_like(margin).index_fill(0, drawn.to(margin.device), 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Mean, spread, and the generator's state."""
        return {"mean": self.mean, "spread": self.spread, "generator": self.generator.get_state().tolist()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes up mean, spread and the generator's state."""
        self.mean, self.spread = float(saved["mean"]), float(saved["spread"])
        self.generator.set_state(torch.tensor(saved["generator"], dtype=torch.uint8))


class MismatchedKL(LossState):
    """KTO's distance of the policy from the reference: the mean log-ratio of answers to other prompts.

    Nothing is remembered; the mean is over the micro-batches of all processes. It may be negative: the loss
    clamps it.
    """

    provides = ("kl",)
    reads = ("policy_mismatched", "reference_mismatched")

    def measure(self, inputs: Inputs, values: Values, total: Total, *, training: bool) -> dict[str, Tensor]:
        """The mean log-ratio, in nats."""
        ratio = (inputs["policy_mismatched"] - inputs["reference_mismatched"]).detach().double()
        found = total(torch.stack([ratio.sum(), ratio.new_tensor(len(ratio))]))
        return {"kl": found[0] / found[1]}
