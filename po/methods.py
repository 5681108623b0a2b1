"""Every method, one entry each.

    from po.methods import METHODS, resolve

    method = resolve("dpo:hinge")                        # METHODS["slic_dpo"]
    values = method.check_params({"beta": 0.2})          # every hyperparameter and option
    loss = method.loss(**inputs, **method.loss_arguments(values))

A new method is a function in `po.losses`, an entry here and a row of values in the tests.
"""

from collections.abc import Mapping
from types import MappingProxyType

from po.aliases import AMBIGUOUS, METHOD_ALIASES
from po.hyperparameters import Choice, MethodError, ParameterError, ParamValue, Range, nearest
from po.losses import anchored, reference_free, supervised
from po.method import Method
from po.rewards import from_log_prob, from_log_ratio

__all__ = ["METHODS", "Method", "MethodError", "ParameterError", "resolve"]

_INF = float("inf")
_REACHABLE_NATS_PER_TOKEN = 2.0

BETA = Range(0, _INF, "reward per nat", low_open=True)
BETA_PER_TOKEN = Range(0, _INF, "reward per nat per token", low_open=True)
TAU = Range(0, _INF, "1 per nat", low_open=True)
GAMMA = Range(0, _INF, "reward")
MARGIN = Range(0, _INF, "nats")
DELTA = Range(0, _INF, "reward", low_open=True)
EPS = Range(0, 0.5, "probability", high_open=True)
NLL_WEIGHT = Range(0, _INF, "weight")
NLL_WEIGHT_ABOVE_0 = Range(0, _INF, "weight", low_open=True, hint="With nll_weight 0 the method is simpo.")
ODDS_WEIGHT = Range(0, _INF, "weight")
REFERENCE_FREE = Choice((False, True), "take the reference as 0")


def _advise_on_target(nats_per_token: float, remedy: str) -> tuple[str, ...]:
    if nats_per_token <= _REACHABLE_NATS_PER_TOKEN:
        return ()
    return (
        f"The target margin is {nats_per_token:g} nats per token, which is hardly ever reached: "
        f"the loss then widens margins without end. {remedy}",
    )


def _simpo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    target = float(values["gamma"]) / float(values["beta"])
    return _advise_on_target(target, "Use a larger beta (2 to 10) or a smaller gamma.")


def _ipo_advice(values: Mapping[str, ParamValue]) -> tuple[str, ...]:
    if not values["length_norm"]:
        return ()
    target = 1 / (2 * float(values["tau"]))
    return _advise_on_target(target, "Averaged log-probabilities want a tau of 0.5 to 10.")


_ENTRIES = (
    Method(
        name="sft",
        loss=supervised.sft,
        logps="mean",
        formula="NLL",
        paper="maximum likelihood",
    ),
    Method(
        name="dpo",
        loss=anchored.dpo,
        logps="sum",
        ranges={"beta": BETA, "margin": MARGIN, "reference_free": REFERENCE_FREE},
        formula="-log σ(beta·(Δ - margin))",
        paper="Rafailov et al. 2023, arXiv:2305.18290",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="dpo_gamma",
        loss=anchored.dpo_gamma,
        logps="sum",
        ranges={"beta": BETA, "gamma": GAMMA, "eps": EPS},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z), z = beta·Δ - gamma",
        paper="Santos 2024, MSc thesis, Instituto Superior Técnico",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="slic_dpo",
        loss=anchored.slic_dpo,
        logps="sum",
        ranges={"beta": BETA, "delta": DELTA},
        formula="max(0, delta - beta·Δ)",
        paper="Liu et al. 2023, arXiv:2309.06657",
        rewards=from_log_ratio("beta"),
    ),
    Method(
        name="ipo",
        loss=anchored.ipo,
        logps="mean",
        length_norm=True,
        ranges={"tau": TAU},
        formula="(Δ - 1/(2·tau))²",
        paper="Azar et al. 2023, arXiv:2310.12036",
        rewards=from_log_ratio("tau"),
        parameter_aliases={"beta": "tau"},
        advice=_ipo_advice,
    ),
    Method(
        name="cpo",
        loss=reference_free.cpo,
        logps="sum",
        ranges={"beta": BETA, "eps": EPS, "nll_weight": NLL_WEIGHT},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z) + nll_weight·NLL, z = beta·R",
        paper="Xu et al. 2024, arXiv:2401.08417",
        rewards=from_log_prob("beta"),
    ),
    Method(
        name="slic",
        loss=reference_free.slic,
        logps="sum",
        ranges={"beta": BETA, "delta": DELTA, "nll_weight": NLL_WEIGHT},
        formula="max(0, delta - beta·R) + nll_weight·NLL",
        paper="Zhao et al. 2023, arXiv:2305.10425",
        rewards=from_log_prob("beta"),
        parameter_aliases={"lam": "nll_weight", "lambda": "nll_weight"},
    ),
    Method(
        name="simpo",
        loss=reference_free.simpo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "eps": EPS, "nll_weight": NLL_WEIGHT},
        formula="-(1 - eps)·log σ(z) - eps·log σ(-z) + nll_weight·NLL, z = beta·R - gamma",
        paper="Meng, Xia, Chen 2024, arXiv:2405.14734",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="cpo_simpo",
        loss=reference_free.cpo_simpo,
        logps="mean",
        ranges={"beta": BETA_PER_TOKEN, "gamma": GAMMA, "eps": EPS, "nll_weight": NLL_WEIGHT_ABOVE_0},
        formula="simpo with nll_weight > 0",
        paper="fe1ixxu/CPO_SIMPO",
        rewards=from_log_prob("beta"),
        parameter_aliases={"margin": "gamma"},
        advice=_simpo_advice,
    ),
    Method(
        name="orpo",
        loss=reference_free.orpo,
        logps="mean",
        ranges={"odds_weight": ODDS_WEIGHT},
        formula="NLL - odds_weight·log σ(log odds(chosen) - log odds(rejected))",
        paper="Hong, Lee, Thorne 2024, arXiv:2403.07691",
        rewards=from_log_prob("odds_weight"),
        parameter_aliases={"beta": "odds_weight", "lam": "odds_weight", "lambda": "odds_weight"},
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ENTRIES})
"""Every method, by its id."""


def resolve(name: str) -> Method:
    """Finds a method by its id or by a name that another project uses.

    Args:
        name: id or alias, such as ``dpo`` or ``cpo:hinge``.

    Returns:
        The method; its `name` is the id.

    Raises:
        MethodError: the name is unknown, or means several methods.
    """
    if name in METHODS:
        return METHODS[name]
    if name in METHOD_ALIASES:
        return METHODS[METHOD_ALIASES[name]]
    if name in AMBIGUOUS:
        meanings = "; ".join(
            f"'{target}' ({use}{'' if target in METHODS else '; not available here'})"
            for target, use in AMBIGUOUS[name].items()
        )
        raise MethodError(f"'{name}' means more than one method. Write the one that is meant: {meanings}.")
    guess = nearest(name, [*METHODS, *METHOD_ALIASES])
    raise MethodError(f"Unknown method '{name}'{guess} Known: {', '.join(sorted(METHODS))}.")
