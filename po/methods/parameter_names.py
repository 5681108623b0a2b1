"""The names under which a method's hyperparameters are accepted, and what they are called here."""

from collections.abc import Mapping
from dataclasses import dataclass

from po.methods.aliases import PARAMETER_ALIASES
from po.methods.hyperparameters import ParamValue, Range, Rule, value_fault

GAMMA_BETA_RATIO = Range(0, float("inf"), "gamma / beta")


@dataclass(frozen=True)
class ParameterNames:
    """Names of one method's hyperparameters and options.

    Attributes:
        method: its id, for messages.
        rules: what each may be, by canonical name.
        defaults: of the hyperparameters.
        aliases: names that this method's papers and trainers use, by the canonical name.
    """

    method: str
    rules: Mapping[str, Rule]
    defaults: Mapping[str, ParamValue]
    aliases: Mapping[str, str]

    def translate(
        self, params: Mapping[str, ParamValue]
    ) -> tuple[dict[str, ParamValue], tuple[str, ...], dict[str, str]]:
        """Values by canonical name, a note for each name that was another, and faults by the given name."""
        translated: dict[str, ParamValue] = {}
        notes: list[str] = []
        faults: dict[str, str] = {}
        for given, value in params.items():
            name = self._canonical(given)
            if name in translated:
                faults[given] = f"{self.method}: {name} is given twice, once as '{given}'; give it once."
                continue
            translated[name] = value
            if name != given:
                notes.append(f"{self.method}: '{given}' is read as '{name}'.")
        if "gamma_beta_ratio" in translated and {"gamma", "beta"} <= set(self.rules):
            fault = self._expand_ratio(translated, notes)
            if fault:
                faults["gamma_beta_ratio"] = fault
        return translated, tuple(notes), faults

    def given(self, name: str, params: Mapping[str, ParamValue]) -> str:
        """The name under which a canonical one was given."""
        return next((given for given in params if self._canonical(given) == name), name)

    def _canonical(self, name: str) -> str:
        target = self.aliases.get(name) or PARAMETER_ALIASES.get(name) or name
        return target if name not in self.rules and target in self.rules else name

    def _expand_ratio(self, translated: dict[str, ParamValue], notes: list[str]) -> str | None:
        """Replaces gamma_beta_ratio by gamma, in place; returns what is wrong with it."""
        ratio = translated.pop("gamma_beta_ratio")
        if "gamma" in translated:
            return f"{self.method}: gamma and gamma_beta_ratio set the same margin; give one of them."
        if fault := value_fault(self.method, "gamma_beta_ratio", GAMMA_BETA_RATIO, ratio):
            return fault
        beta = translated.get("beta", self.defaults["beta"])
        if not self.rules["beta"].allows(beta):
            return None  # the fault of beta is reported on its own
        translated["gamma"] = gamma = float(ratio) * float(beta)
        notes.append(f"{self.method}: gamma_beta_ratio {ratio} is stored as gamma {gamma:g} (beta {beta}).")
        return None
