"""The values of one cell while they are put together: the manifest's, a grid point's, overrides'."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from experiments.check_tasks import decoding_fault
from experiments.problems import Problem
from experiments.raw_entries import Place
from experiments.schema import Training
from experiments.schema_speed import AUTO
from experiments.schema_tasks import Generation
from po.methods import Method, MethodError


class ValueFault(ValueError):
    """Values that do not go together; ``problem`` says which and where."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(f"{problem.place}: {problem.message}")


def canonical_name(method: Method, key: str, value: Any) -> str:
    """The name of a hyperparameter in the table of methods.

    A name that stands for another value too (``gamma_beta_ratio``) stays as it is.
    """
    try:
        translated, _ = method.canonical({key: value})
    except MethodError:
        return key
    return next((name for name, found in translated.items() if found == value), key)


class CellValues:
    """Settings of training and generation, and a method's hyperparameters; what is set later wins.

    Args:
        name: what the manifest calls the method.
        method: None for a model that is only measured.
        task: of the cell, for messages.

    Attributes:
        advice: remarks of the method about its values, after ``checked``.
        notes: names that were translated, after ``checked``.
    """

    def __init__(
        self, name: str, method: Method | None, training: Training, generation: Generation, task: str
    ) -> None:
        self._name, self._method, self._task = name, method, task
        self._training = training.model_dump()
        self._generation = generation.model_dump()
        self._params: dict[str, Any] = {}
        self._set_by: Place = ("methods", name)
        self._decoding_set_by: Place = ("tasks", task, "generation")
        self.advice: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Sets hyperparameters of the method, and settings of training by their plain names."""
        params: dict[str, Any] = {}
        for key, value in values.items():
            if key in self._training:
                _put(self._training, key, value)
            else:
                params[key] = value
        self._merge(params)

    def override(self, values: Mapping[str, Any], where: Place) -> None:
        """Sets values by their dotted names.

        Args:
            values: ``training.<key>``, ``training.speed.<key>``, ``generation.<key>`` or ``params.<key>`` ->
                value.
            where: the place in the manifest that gets the blame if the values do not go together.
        """
        params: dict[str, Any] = {}
        for dotted, value in values.items():
            section, _, key = dotted.partition(".")
            if section == "generation":
                self._generation[key], self._decoding_set_by = value, (*where, dotted)
                continue
            self._set_by = (*where, dotted)
            if section == "params":
                params[key] = value
            else:
                _put(self._training, key, value)
        self._merge(params)

    def facts(self) -> dict[str, Any]:
        """``params.<name>`` -> value, for rules to match; canonical names, defaults spelled out.

        Raises:
            ValueFault: the method does not allow the values.
        """
        return {f"params.{key}": value for key, value in {**self._training, **self._checked_params()}.items()}

    def checked(self) -> tuple[dict[str, Any], Training, Generation]:
        """Hyperparameters, settings of training and of generation.

        Raises:
            ValueFault: a value is not allowed, or some contradict each other.
        """
        params = self._checked_params()
        try:
            training = Training.model_validate(self._training)
        except ValidationError as error:
            raise ValueFault(_first(error, self._set_by)) from None
        try:
            generation = Generation.model_validate(self._generation)
        except ValidationError as error:
            raise ValueFault(_first(error, self._decoding_set_by)) from None
        fault = self._batch_fault(training)
        if fault:
            raise ValueFault(Problem(self._set_by, fault))
        fault = decoding_fault(generation)
        if fault:
            raise ValueFault(Problem(self._decoding_set_by, fault))
        return params, training, generation

    def _batch_fault(self, training: Training) -> str | None:
        total, each = training.global_batch_size, training.per_device_batch_size
        if each == AUTO:
            if self._method is None or not self._method.batch_coupled:
                return None
            return (
                f"per_device_batch_size: a loss of {self._method.name} depends on its micro-batch, so that "
                "its size is a hyperparameter; give a number in place of auto"
            )
        if total % each:
            return f"global_batch_size {total} is not divisible by per_device_batch_size {each}"
        return None

    def _merge(self, params: Mapping[str, Any]) -> None:
        """Puts ``params`` on top, also where the two use different names for one hyperparameter."""
        replaced = {self._target(key) for key in params}
        self._params = {k: v for k, v in self._params.items() if self._target(k) not in replaced} | dict(
            params
        )

    def _target(self, key: str) -> str:
        """The hyperparameter that a name sets in the end."""
        if self._method is None:
            return key
        try:
            return next(iter(self._method.canonical({key: 1.0})[0]))
        except MethodError:
            return key  # what is wrong with it is said when all values are checked

    def _checked_params(self) -> dict[str, Any]:
        if self._method is None:
            return {}
        try:
            translated, self.notes = self._method.canonical(self._params)
            params = self._method.check_params(translated)
        except MethodError as error:
            raise ValueFault(Problem(self._set_by, str(error))) from None
        self.advice = tuple(f"methods.{self._name}: {remark}" for remark in self._method.advice(params))
        return params


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets a value by its name, ``speed.head`` inside ``speed``; of a section, what is given and no more."""
    section, dot, inner = key.partition(".")
    if dot:
        key, value = section, {inner: value}
    old = settings[key]
    settings[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value


def _first(error: ValidationError, where: Place) -> Problem:
    fault = error.errors()[0]
    key = fault["loc"][-1] if fault["loc"] else ""
    return Problem(where, f"{key} = {fault['input']!r}: {fault['msg']}")
