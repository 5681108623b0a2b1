"""Faults that a schema cannot see: names that must exist elsewhere, values that a method allows, batch sizes.

Works on the raw data, so that these faults are reported together with the schema's even where an entry is
malformed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from experiments.check_methods import TRAINING_KEYS, method_problems, resolved
from experiments.check_tasks import data_problems
from experiments.output_checks import file_problems
from experiments.problems import Problem, nearest, offer
from experiments.raw_entries import Place, Raw, items, unknown_name
from experiments.schema import Training
from experiments.schema_speed import Speed
from experiments.schema_tasks import Generation
from experiments.selectors import condition_fault


def find_problems(raw: Any) -> list[Problem]:
    """All faults of names, values and files in a manifest's raw data."""
    if not isinstance(raw, Mapping):
        return [Problem((), "a manifest is a mapping of name, models, tasks, methods, seeds, ...")]
    found = [*method_problems(raw), *data_problems(raw), *file_problems(raw)]
    return [*found, *_batches(raw), *_rules(raw), *_report(raw)]


def _batches(raw: Raw) -> Iterator[Problem]:
    training = raw.get("training")
    base = training if isinstance(training, Mapping) else {}
    yield from _divides(base, {}, ("training", "global_batch_size"))
    for name, entry in items(raw, "methods"):
        params = entry.get("params")
        if isinstance(params, Mapping) and {"global_batch_size", "per_device_batch_size"} & set(params):
            yield from _divides(base, params, ("methods", name, "params"))


def _divides(base: Raw, own: Raw, where: Place) -> Iterator[Problem]:
    defaults = Training()
    total = own.get("global_batch_size", base.get("global_batch_size", defaults.global_batch_size))
    each = own.get("per_device_batch_size", base.get("per_device_batch_size", defaults.per_device_batch_size))
    if isinstance(total, int) and isinstance(each, int) and each > 0 and total % each:
        message = f"global_batch_size {total} is not divisible by per_device_batch_size {each}"
        yield Problem(where, message)


def _rules(raw: Raw) -> Iterator[Problem]:
    """Faults of overrides, exclude and resources.rules."""
    resources = raw.get("resources")
    sections: list[tuple[Place, Any]] = [
        (("overrides",), raw.get("overrides")),
        (("exclude",), raw.get("exclude")),
    ]
    if isinstance(resources, Mapping):
        sections.append((("resources", "rules"), resources.get("rules")))
    for where, rules in sections:
        for index, rule in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(rule, Mapping):
                yield from _conditions(raw, rule.get("when"), (*where, index, "when"))
                if where == ("overrides",):
                    yield from _override_values(raw, rule.get("set"), (*where, index, "set"))


def _conditions(raw: Raw, when: Any, where: Place) -> Iterator[Problem]:
    for key, condition in when.items() if isinstance(when, Mapping) else ():
        fault = condition_fault(str(key), condition)
        if fault is None and key == "stage" and where[0] != "resources":
            fault = "a rule on stages belongs to resources.rules; a cell has all its stages"
        if fault:
            yield Problem((*where, str(key)), fault)
        elif key in ("model", "task", "method"):
            yield from _names_exist(raw, str(key), condition, (*where, str(key)))
        elif str(key).startswith("params."):
            yield from _parameter_exists(raw, str(key), (*where, str(key)))


def _names_exist(raw: Raw, key: str, condition: Any, where: Place) -> Iterator[Problem]:
    known = raw.get(f"{key}s")
    for name in condition if isinstance(condition, list) else [condition]:
        if unknown_name(name, known):
            yield Problem(where, f"'{name}' is no {key} of this manifest; {nearest(name, known or ())}")


def _parameter_exists(raw: Raw, key: str, where: Place) -> Iterator[Problem]:
    methods = [method for _, entry in items(raw, "methods") if (method := resolved(_, entry)) is not None]
    known = {f"params.{name}" for name in [*TRAINING_KEYS, *(rule for m in methods for rule in m.rules)]}
    if key not in known:
        rest = offer(key, known, "conditions use the names of the methods' table.")
        message = f"no method of this manifest has '{key.removeprefix('params.')}'; {rest}"
        yield Problem(where, message)


def _override_values(raw: Raw, values: Any, where: Place) -> Iterator[Problem]:
    entries: dict[str, type[BaseModel]] = {
        "training.speed": Speed,
        "training": Training,
        "generation": Generation,
    }
    allowed = [f"{section}.{key}" for section, entry in entries.items() for key in entry.model_fields]
    for dotted, value in values.items() if isinstance(values, Mapping) else ():
        section, _, key = str(dotted).partition(".")
        if section == "params" and key in TRAINING_KEYS:
            yield Problem((*where, str(dotted)), f"'{key}' is a setting of training; write training.{key}")
        elif section == "params" and key:
            continue  # what a method allows is checked for every cell that the rule matches
        elif str(dotted) not in allowed:
            message = f"'{dotted}' cannot be set here; {nearest(dotted, allowed)} Or params.<name>."
            yield Problem((*where, str(dotted)), message)
        else:
            section, _, key = str(dotted).rpartition(".")
            yield from _one_setting(entries[section], key, value, (*where, str(dotted)))


def _one_setting(entry: type[BaseModel], key: str, value: Any, where: Place) -> Iterator[Problem]:
    try:
        entry.model_validate({key: value})
    except ValidationError as error:
        yield Problem(where, f"{value!r}: {error.errors()[0]['msg']}")


def _report(raw: Raw) -> Iterator[Problem]:
    report, methods = raw.get("report"), raw.get("methods")
    given = report.get("baseline") if isinstance(report, Mapping) else None
    baseline = "sft" if given is None else given
    if unknown_name(baseline, methods):
        default = " (the default)" if given is None else ""
        message = f"'{baseline}'{default} is no method of this manifest; {nearest(baseline, methods or ())}"
        yield Problem(("report", "baseline"), message)
