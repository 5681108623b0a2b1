"""The parts of a weighted sum of losses: how each finds its inputs and hyperparameters among those of all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from po.methods.hyperparameters import Option, ParamValue, Rule
from po.methods.loss_state import Inputs, LossState, Total, Values
from po.methods.method import Method
from po.methods.rewards import PairRewards


@dataclass(frozen=True)
class Part:
    """One method of a sum. Its hyperparameters carry its name in front: ``dpo_beta``.

    A method that can be used with averaged or summed log-probabilities is used as it is by default.
    """

    method: Method

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the sum has to take for this part."""
        return tuple(map(self._taken, self.method.inputs))

    @property
    def weight(self) -> str:
        """Name of the part's weight."""
        return f"{self.method.name}_weight"

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyperparameters under the sum's names."""
        return {self._named(key): value for key, value in self.method.defaults.items()}

    @property
    def ranges(self) -> dict[str, Rule]:
        """What each hyperparameter may be, under the sum's names."""
        return {self._named(key): rule for key, rule in self.method.ranges.items()}

    @property
    def when(self) -> dict[str, tuple[str, ParamValue]]:
        """Inputs that are needed only where a hyperparameter has a value, under the sum's names."""
        conditions = self.method.when.items()
        return {self._taken(name): (self._named(key), value) for name, (key, value) in conditions}

    def loss(self, given: Mapping[str, Any]) -> Tensor:
        """The part's losses, out of the sum's inputs and hyperparameters."""
        return self.method.loss(**self._view(given), **self._own(given))

    def rewards(self, inputs: Inputs, values: Values) -> tuple[Tensor, Tensor]:
        """The part's rewards, out of the sum's inputs and hyperparameters."""
        rewards = cast(PairRewards, self.method.rewards)
        return rewards(self._view(inputs), self._own(values))

    def state(self, defaults: Mapping[str, ParamValue]) -> type[LossState]:
        """The part's state as the sum's.

        Args:
            defaults: of its options, under the sum's names, where they differ from the state's own.
        """
        part, base = self, self.method.state
        assert base is not None
        own_options = base.options

        class PartState(base):  # type: ignore[valid-type, misc]
            options = {
                part._named(key): replace(option, default=defaults.get(part._named(key), option.default))
                for key, option in own_options.items()
            }

            def measure(
                self, inputs: Inputs, values: Values, total: Total, *, training: bool
            ) -> dict[str, Tensor]:
                own = part._own(values) | {key: values[part._named(key)] for key in own_options}
                found: dict[str, Tensor] = super().measure(part._view(inputs), own, total, training=training)
                return found

        return PartState

    def state_options(self) -> dict[str, Option]:
        """Options of the part's state under the sum's names; none where it has no state."""
        return dict(self.state({}).options) if self.method.state else {}

    def _taken(self, name: str) -> str:
        averaged = self.method.logps == "mean" and name.startswith(("policy_", "reference_"))
        return f"{name}_mean" if averaged else name

    def _named(self, key: str) -> str:
        return f"{self.method.name}_{key}"

    def _view(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: given[self._taken(name)] for name in self.method.inputs if self._taken(name) in given}

    def _own(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {key: given[self._named(key)] for key in self.method.defaults}
