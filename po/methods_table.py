"""Print the table of methods that stands in the README.

    python -m po.methods_table

Writes  Markdown to stdout
"""

import argparse
import sys
from collections.abc import Sequence

from po.methods import METHODS
from po.methods.hyperparameters import shown
from po.methods.method import LENGTH_NORM, NLL_REDUCTION, Method
from po.piped import piped

_EXPLAINED = ("nll_reduction", "length_norm")

_HEADER = ("id", "loss", "data", "reference", "log-probs", "hyperparameters (default; allowed)", "source")

_LEGEND = f"""\
a and b are the log-probabilities of the chosen and of the rejected completion relative to the reference, and
Δ = a - b; R is the same difference without a reference. m are averaged log-probabilities, n token counts,
s scores of the data, KL(y) the sum over a completion's tokens of KL(reference || policy), q the mean over its
tokens of log Σ p² under the policy, h the reference's mean entropy in units of log(vocabulary); w and l stand
for chosen and rejected. odds = p / (1 - p), and σ is the logistic function. NLL is the negative
log-likelihood of the chosen completion; the setting `nll_reduction`
({NLL_REDUCTION.bounds()}) of the methods that have it says over what it is taken.

*data*: pairs; completions with a label (`unpaired`; pairs are taken too); lists in rank order. *reference*:
`live` needs the model itself in every step, for the others its values are computed once and stored.
*log-probs* says whether token log-probabilities are summed or averaged over the completion, or by which rule
tokens count; where two stand, the setting `length_norm` ({LENGTH_NORM.bounds()}) chooses. The first of
several values is the default. † The loss of one example depends on the others of its micro-batch, or
on a draw for all of it, so that `per_device_batch_size` is a hyperparameter.

Methods can be put together: `tr_dpo(ipo)` (any method with a reference), `wpo(simpo)` (any that has a loss
for each pair), `mix(dpo, sft)` (a weighted sum, with `dpo_weight`, `dpo_beta`, ...).
"""


def methods_table() -> str:
    """The methods as Markdown: a table with one row each, and a legend of its symbols.

    Returns:
        The text, with a final newline.
    """
    rows = [_HEADER, ("---",) * len(_HEADER), *(_row(method) for method in METHODS.values())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{table}\n\n{_LEGEND}"


def _row(method: Method) -> tuple[str, ...]:
    logps = "mean or sum" if method.length_norm else method.logps.replace("_", " ")
    needs = "live" if method.needs_live_reference else "yes" if method.needs_reference else "no"
    name = f"`{method.name}`{' †' if method.batch_coupled else ''}"
    return name, f"`{method.formula}`", method.data, needs, logps, _hyperparameters(method), method.paper


def _hyperparameters(method: Method) -> str:
    """Those of the loss and of its inputs, but for the settings that the legend explains."""
    defaults, rules = method.check_params({}), method.rules
    names = [name for name in rules if name not in _EXPLAINED]
    return ", ".join(f"`{name}` ({shown(defaults[name])}; {rules[name].bounds()})" for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    argparse.ArgumentParser(
        prog="python -m po.methods_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    sys.stdout.write(methods_table())
    return 0


if __name__ == "__main__":
    sys.exit(piped(main))
