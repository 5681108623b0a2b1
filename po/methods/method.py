"""The type of a method: all that the rest of the code may know about one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from po.methods.aliases import ADVICE
from po.methods.diagnostics import Diagnostics
from po.methods.hyperparameters import (
    Choice,
    Option,
    ParameterError,
    ParamValue,
    Range,
    Rule,
    nearest,
    value_fault,
)
from po.methods.logp_rules import TOKEN_RULES
from po.methods.loss_state import LossState
from po.methods.parameter_names import ParameterNames
from po.methods.rewards import RewardFunction
from po.methods.signature import parameters_of

DataForm = Literal["paired", "unpaired", "ranked", "supervised"]

NLL_REDUCTION = Choice(
    ("token_batch", "seq_mean", "seq_sum"),
    "mean over the tokens of the optimizer step, mean over the tokens of the pair, or sum",
)
"""How token losses become `chosen_nll`. A weight means another thing under each of the three."""

LENGTH_NORM = Choice((True, False), "log-probabilities averaged over the completion's tokens, or summed")
NLL_SCOPE = Choice(("completion", "prompt_and_completion"), "which tokens the likelihood counts")
SYNC = {
    "sync_steps": Option(Range(1, float("inf"), "optimizer steps"), 512.0),
    "sync_mix": Option(Range(0, 1, "share of the policy's weights", low_open=True), 0.6),
}
"""When the reference moves towards the policy, and how far: ref <- mix·policy + (1 - mix)·ref."""


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
        logps: how token log-probabilities become one number per completion: ``sum``, ``mean``, or a rule of
            ``po.methods.logp_rules``.
        ranges: what each hyperparameter of the loss may be.
        formula: the loss in one line, in the symbols of `po.methods_table`.
        paper: authors, year and identifier.
        rewards: (inputs, values) -> rewards of chosen and rejected for the log; None where there are none.
        diagnostics: (inputs, values) -> further figures for the log, by name, one per example.
        length_norm: offer the setting ``length_norm``, which overrides `logps` (IPO is used both ways).
        nll_scope: offer the setting ``nll_scope``: whether the likelihood counts prompt tokens too.
        per_example: the loss returns one value per example, in order; if not, only their mean has a meaning.
        both_classes: a micro-batch of wanted completions only, or of unwanted ones only, teaches nothing.
        batch_coupled: the loss of one pair depends on the others of its micro-batch, or on a draw for all
            of it, so that the size of a micro-batch is a hyperparameter.
        when: inputs that are needed only where a parameter has a value: input -> (parameter, value).
        state: makes what the loss remembers, or measures, over examples and processes.
        reference_sync: the reference moves towards the policy during training (TR-DPO).
        extra: further options, by name.
        parts: the methods of which it is put together.
        parameter_aliases: names that this method's papers and trainers use, by the canonical name.
        advice: values -> remarks about values that are allowed but seldom meant.
        presets: other defaults than those of the loss and its options, for a use under another name.
    """

    name: str
    loss: Callable[..., Tensor]
    logps: str
    ranges: Mapping[str, Rule] = field(default_factory=dict)
    formula: str
    paper: str
    rewards: RewardFunction | None = None
    diagnostics: Diagnostics | None = None
    length_norm: bool = False
    nll_scope: bool = False
    per_example: bool = True
    both_classes: bool = False
    batch_coupled: bool = False
    when: Mapping[str, tuple[str, ParamValue]] = field(default_factory=dict)
    state: type[LossState] | None = None
    reference_sync: bool = False
    extra: Mapping[str, Option] = field(default_factory=dict)
    parts: tuple["Method", ...] = ()
    parameter_aliases: Mapping[str, str] = field(default_factory=dict)
    advice: Callable[[Mapping[str, ParamValue]], tuple[str, ...]] = _nothing_to_say
    presets: Mapping[str, ParamValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses an entry that disagrees with its loss."""
        if set(self.ranges) != set(self.defaults):
            ranges, parameters = sorted(self.ranges), sorted(self.defaults)
            raise TypeError(f"{self.name}: ranges are given for {ranges}, but the loss has {parameters}.")
        for name, default in (self.defaults | dict(self.presets)).items():
            if fault := value_fault(self.name, name, self.rules[name], default):
                raise TypeError(f"The default is not allowed: {fault}")
        if self.length_norm and self.logps != "mean":
            raise TypeError(f"{self.name}: length_norm is true by default, so logps must be 'mean'.")
        if self.logps not in {"sum", "mean", *TOKEN_RULES}:
            known = ", ".join(["sum", "mean", *TOKEN_RULES])
            raise TypeError(f"{self.name}: unknown log-prob rule '{self.logps}'; there are {known}.")
        for name in ("ranges", "parameter_aliases", "when", "extra", "presets"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the loss takes."""
        return parameters_of(self.loss)[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyperparameters of the loss with their default values."""
        return dict(parameters_of(self.loss)[1])

    @property
    def _options(self) -> dict[str, Option]:
        options: dict[str, Option] = {}
        if self.needs_nll:
            options["nll_reduction"] = Option(NLL_REDUCTION, "token_batch")
        if self.nll_scope:
            options["nll_scope"] = Option(NLL_SCOPE, "completion")
        if self.length_norm:
            options["length_norm"] = Option(LENGTH_NORM, True)
        if self.logps in TOKEN_RULES:
            options |= TOKEN_RULES[self.logps].options
        if self.state is not None:
            options |= self.state.options
        return options | (SYNC if self.reference_sync else {}) | dict(self.extra)

    @property
    def options(self) -> dict[str, Rule]:
        """Settings of the method that its loss does not take: they decide how its inputs are computed."""
        return {name: option.rule for name, option in self._options.items()}

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
    def data(self) -> DataForm:
        """What an example is.

        ``paired``: a chosen and a rejected completion of one prompt; ``unpaired``: one completion with a
        label (pairs are taken too, as two such); ``ranked``: several completions, best first; ``supervised``:
        one completion to imitate.
        """
        if {"policy_rejected", "policy_rejected_mean"} & set(self.inputs):
            return "paired"
        if "policy_ranked" in self.inputs:
            return "ranked"
        return "unpaired" if "desirable" in self.inputs else "supervised"

    @property
    def paired(self) -> bool:
        """Whether an example is a chosen and a rejected completion of one prompt."""
        return self.data == "paired"

    @property
    def needs_live_reference(self) -> bool:
        """Whether the reference must be at hand as a model: stored log-probabilities do not do."""
        return self.reference_sync or "chosen_kl" in self.inputs

    def needed(self, values: Mapping[str, ParamValue]) -> tuple[str, ...]:
        """What the trainer has to compute: the loss's inputs and what its state reads.

        Args:
            values: the result of `check_params`.

        Returns:
            Names of tensors; without those that the state provides, and those of `when` that are not needed.
        """
        state = self.state
        names = [name for name in self.inputs if state is None or name not in state.provides]
        names += [name for name in (state.reads if state else ()) if name not in names]
        return tuple(n for n in names if n not in self.when or values[self.when[n][0]] == self.when[n][1])

    def stored_reference(self, values: Mapping[str, ParamValue]) -> tuple[str, ...]:
        """Kinds of reference values that can be computed before training; none where a model must be asked.

        Args:
            values: the result of `check_params`.

        Returns:
            Kinds of `po.references.values`.
        """
        if not self.needs_reference or self.needs_live_reference:
            return ()
        needed = self.needed(values)
        more = {
            "entropy": "reference_entropy" in needed,
            "token_logps": self.logps in TOKEN_RULES,
            "mismatched_logps": "reference_mismatched" in needed,
        }
        return ("logps", *(kind for kind, wanted in more.items() if wanted))

    def logps_for(self, values: Mapping[str, ParamValue]) -> str:
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
        translated, notes, faults = self._names.translate(params)
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
        translated, _, faults = self._names.translate(params)
        rules = self.rules
        known = ", ".join(rules) or "none"
        for name in sorted(set(translated) - set(rules)):
            message = f"{self.name} has no parameter '{name}'{nearest(name, rules)} It has: {known}."
            faults[name] = f"{message} {ADVICE[name]}" if name in ADVICE else message
        options = {name: option.default for name, option in self._options.items()}
        defaults = options | self.defaults | dict(self.presets)
        values: dict[str, ParamValue] = {}
        for name, rule in rules.items():
            value = translated[name] if name in translated else defaults[name]
            if fault := value_fault(self.name, name, rule, value):
                faults.setdefault(self._names.given(name, params), fault)
            else:
                values[name] = rule.normal(value)
        if faults:
            raise ParameterError(faults)
        return values

    @property
    def _names(self) -> ParameterNames:
        return ParameterNames(self.name, self.rules, self.defaults, self.parameter_aliases)
