"""The type of a method: all that the rest of the code may know about one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from po.aliases import PARAMETER_ALIASES
from po.hyperparameters import Choice, ParameterError, ParamValue, Range, Rule, nearest, value_fault
from po.rewards import RewardFunction

LogpRule = Literal["sum", "mean"]

NLL_REDUCTION = Choice(
    ("token_batch", "seq_mean", "seq_sum"),
    "mean over the tokens of the optimizer step, mean over the tokens of the pair, or sum",
)
"""How token losses become `chosen_nll`. A weight means another thing under each of the three."""

LENGTH_NORM = Choice((True, False), "log-probabilities averaged over the completion's tokens, or summed")
GAMMA_BETA_RATIO = Range(0, float("inf"), "gamma / beta")


def _nothing_to_say(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method.

    Inputs, defaults and the need for a reference are derived from the loss's signature: its positional
    parameters are the inputs, its keyword-only parameters the hyperparameters.

    Attributes:
        name: the id.
        loss: the loss; one value per pair, not reduced.
        logps: how token log-probabilities become one number per completion.
        ranges: what each hyperparameter of the loss may be.
        formula: the loss in one line, in the symbols of `po.methods_table`.
        paper: authors, year and identifier.
        rewards: (inputs, values) -> rewards of chosen and rejected for the log; None where there are none.
        length_norm: offer the setting ``length_norm``, which overrides `logps` (IPO is used both ways).
        batch_coupled: the loss of one pair depends on the others, so batch size is a hyperparameter.
        parameter_aliases: names that this method's papers and trainers use, by the canonical name.
        advice: values -> remarks about values that are allowed but seldom meant.
    """

    name: str
    loss: Callable[..., Tensor]
    logps: LogpRule
    ranges: Mapping[str, Rule] = field(default_factory=dict)
    formula: str
    paper: str
    rewards: RewardFunction | None = None
    length_norm: bool = False
    batch_coupled: bool = False
    parameter_aliases: Mapping[str, str] = field(default_factory=dict)
    advice: Callable[[Mapping[str, ParamValue]], tuple[str, ...]] = _nothing_to_say

    def __post_init__(self) -> None:
        """Refuses an entry that disagrees with its loss."""
        if set(self.ranges) != set(self.defaults):
            ranges, parameters = sorted(self.ranges), sorted(self.defaults)
            raise TypeError(f"{self.name}: ranges are given for {ranges}, but the loss has {parameters}.")
        for name, default in self.defaults.items():
            if fault := value_fault(self.name, name, self.ranges[name], default):
                raise TypeError(f"The default is not allowed: {fault}")
        if self.length_norm and self.logps != "mean":
            raise TypeError(f"{self.name}: length_norm is true by default, so logps must be 'mean'.")
        for name in ("ranges", "parameter_aliases"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the loss takes."""
        parameters = inspect.signature(self.loss).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyperparameters of the loss with their default values."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def options(self) -> dict[str, Choice]:
        """Settings of the method that its loss does not take: they decide how its inputs are computed."""
        options = {"nll_reduction": NLL_REDUCTION} if self.needs_nll else {}
        return options | ({"length_norm": LENGTH_NORM} if self.length_norm else {})

    @property
    def rules(self) -> dict[str, Rule]:
        """What each hyperparameter and option may be."""
        return {**self.ranges, **self.options}

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads log-probabilities of a reference model."""
        return any(name.startswith("reference") for name in self.inputs)

    @property
    def needs_nll(self) -> bool:
        """Whether the loss reads the negative log-likelihood of the chosen completion."""
        return "chosen_nll" in self.inputs

    @property
    def paired(self) -> bool:
        """Whether an example is a chosen and a rejected completion of one prompt."""
        return "policy_rejected" in self.inputs

    def logps_for(self, values: Mapping[str, ParamValue]) -> LogpRule:
        """How token log-probabilities become the loss's inputs under these values.

        Args:
            values: the result of `check_params`.

        Returns:
            `logps`, or what ``length_norm`` says where the method offers it.
        """
        if not self.length_norm:
            return self.logps
        return "mean" if values["length_norm"] else "sum"

    def loss_arguments(self, values: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Those of the values that the loss takes, without the options.

        Args:
            values: the result of `check_params`.

        Returns:
            Keyword arguments of `loss`.
        """
        return {name: values[name] for name in self.defaults}

    def canonical(self, params: Mapping[str, ParamValue]) -> tuple[dict[str, ParamValue], tuple[str, ...]]:
        """Translates the names of papers and trainers; values are not checked and defaults not filled in.

        ``gamma_beta_ratio`` becomes gamma = ratio * beta where the method has both.

        Args:
            params: hyperparameters and options, under any accepted name.

        Returns:
            The same under canonical names, and one note per name that was translated.

        Raises:
            ParameterError: one hyperparameter is given under two names.
        """
        translated, notes, faults = self._translate(params)
        if faults:
            raise ParameterError(faults)
        return translated, notes

    def check_params(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Checks hyperparameters and options and fills in the defaults.

        Args:
            params: those that were given, under any accepted name.

        Returns:
            Every hyperparameter and option of the method; numbers as float.

        Raises:
            ParameterError: some are unknown, given twice or not allowed; the message has all of them.
        """
        translated, _, faults = self._translate(params)
        rules = self.rules
        known = ", ".join(rules) or "none"
        for name in sorted(set(translated) - set(rules)):
            faults[name] = f"{self.name} has no parameter '{name}'{nearest(name, rules)} It has: {known}."
        defaults = {name: choice.values[0] for name, choice in self.options.items()} | self.defaults
        values: dict[str, ParamValue] = {}
        for name, rule in rules.items():
            value = translated[name] if name in translated else defaults[name]
            if fault := value_fault(self.name, name, rule, value):
                faults.setdefault(self._given_name(name, params), fault)
            else:
                values[name] = rule.normal(value)
        if faults:
            raise ParameterError(faults)
        return values

    def _canonical_name(self, name: str) -> str:
        rules = self.rules
        target = self.parameter_aliases.get(name) or PARAMETER_ALIASES.get(name)
        return target if name not in rules and target in rules else name

    def _given_name(self, name: str, params: Mapping[str, ParamValue]) -> str:
        return next((given for given in params if self._canonical_name(given) == name), name)

    def _translate(
        self, params: Mapping[str, ParamValue]
    ) -> tuple[dict[str, ParamValue], tuple[str, ...], dict[str, str]]:
        translated: dict[str, ParamValue] = {}
        notes: list[str] = []
        faults: dict[str, str] = {}
        for given, value in params.items():
            name = self._canonical_name(given)
            if name in translated:
                faults[given] = f"{self.name}: {name} is given twice, once as '{given}'; give it once."
                continue
            translated[name] = value
            if name != given:
                notes.append(f"{self.name}: '{given}' is read as '{name}'.")
        if "gamma_beta_ratio" in translated and {"gamma", "beta"} <= set(self.ranges):
            fault = self._expand_ratio(translated, notes)
            if fault:
                faults["gamma_beta_ratio"] = fault
        return translated, tuple(notes), faults

    def _expand_ratio(self, translated: dict[str, ParamValue], notes: list[str]) -> str | None:
        """Replaces gamma_beta_ratio by gamma, in place; returns what is wrong with it."""
        ratio = translated.pop("gamma_beta_ratio")
        if "gamma" in translated:
            return f"{self.name}: gamma and gamma_beta_ratio set the same margin; give one of them."
        if fault := value_fault(self.name, "gamma_beta_ratio", GAMMA_BETA_RATIO, ratio):
            return fault
        beta = translated.get("beta", self.defaults["beta"])
        if not self.ranges["beta"].allows(beta):
            return None  # the fault of beta is reported on its own
        translated["gamma"] = gamma = float(ratio) * float(beta)
        notes.append(f"{self.name}: gamma_beta_ratio {ratio} is stored as gamma {gamma:g} (beta {beta}).")
        return None
