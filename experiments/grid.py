"""Manifest -> cells, in the order in which they can be trained. Pure: reads no file and starts nothing."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.cell_values import CellValues, ValueFault, canonical_name
from experiments.identity import canonical, number_text
from experiments.problems import Problem
from experiments.schema import Manifest, Method, Training
from experiments.schema_tasks import Generation
from experiments.selectors import matches
from po.methods import Method as LossMethod
from po.methods import resolve

method_named = functools.cache(resolve)
"""``resolve``, once for each name: what is put together (``wpo(ipo)``) is not so again for every cell."""


class GridError(ValueError):
    """A grid that cannot be expanded; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("; ".join(f"{p.place}: {p.message}" for p in self.problems))


@dataclass(frozen=True)
class Cell:
    """One point of the study: a model, a task, a method with its values, a seed.

    Attributes:
        axes: the values that tell this cell from its method's other cells.
        train: id in po.methods, or None for a model that is only measured.
        params: hyperparameters and options of the method, defaults spelled out.
        training: training settings, all spelled out.
        parent: the cell whose weights this one starts from.
        pairs_from: the cell whose samples make its pairs, if the task makes any and the method needs them.
        outputs: test set -> file of outputs that others made, which are measured in place of a model's.
    """

    model: str
    task: str
    method: str
    seed: int
    axes: Mapping[str, Any]
    train: str | None
    params: Mapping[str, Any]
    training: Training
    generation: Generation
    parent: "Cell | None" = field(default=None, repr=False)
    pairs_from: "Cell | None" = field(default=None, repr=False)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def name(self) -> str:
        """``tinyllama.mt.dpo.beta0.1-gamma2.s42``: the axes that vary; no seed where nothing is trained."""
        axes = "-".join(f"{key}{number_text(value)}" for key, value in self.axes.items())
        parts = [self.model, self.task, self.method, axes, f"s{self.seed}" if self.train else ""]
        return ".".join(part for part in parts if part)

    @functools.cached_property
    def facts(self) -> Mapping[str, Any]:
        """What ``when`` and ``--only`` can match."""
        named = {"model": self.model, "task": self.task, "method": self.method, "seed": self.seed}
        values = {**self.training.model_dump(), **self.params}
        return named | {f"params.{key}": value for key, value in values.items()}

    @property
    def needs_reference(self) -> bool:
        """Whether its loss reads reference values that are computed before training."""
        return bool(self.reference_kinds)

    @functools.cached_property
    def data_form(self) -> str:
        """What an example of its training is (``po.methods.Method.data``); empty if nothing is trained."""
        return method_named(self.train).data if self.train else ""

    @functools.cached_property
    def reference_kinds(self) -> tuple[str, ...]:
        """Which values of the reference are computed before training."""
        return method_named(self.train).stored_reference(self.params) if self.train else ()


@dataclass(frozen=True)
class Grid:
    """All cells, and what the user should know about how they came about.

    Attributes:
        warnings: what is allowed but seldom meant.
        notes: how something was read.
    """

    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def expand_grid(manifest: Manifest) -> Grid:
    """Every cell of a manifest, parents before children.

    Raises:
        GridError: a parent with several points or excluded, values that do not go together, no cell left.
    """
    builder = _Builder(manifest)
    cells = tuple(builder.cells())
    if builder.problems:
        raise GridError(builder.problems)
    if not cells:
        raise GridError([Problem(("exclude",), "every cell is excluded; nothing is left to run")])
    return Grid(cells, tuple(builder.warnings()), tuple(builder.notes))


class _Builder:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.problems: list[Problem] = []
        self.made: dict[tuple[Any, ...], Cell | None] = {}
        self.used_rules: set[str] = set()
        self._pairs_methods: dict[tuple[str, str], str | None] = {}
        self._axes: dict[tuple[str, int], dict[str, Any]] = {}
        # dictionaries for sets that keep their order
        self.advice: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.points = {}
        for name, method in manifest.methods.items():
            self.points[name], repeated = _points(method)
            if repeated:
                self.advice[f"methods.{name}: {repeated} repeated point(s) of the grid; each is run once"] = (
                    None
                )
        parents = {method.from_ for method in manifest.methods.values()}
        parents |= {task.pairs.from_ for task in manifest.tasks.values() if task.pairs}
        self.parents = parents - {None}

    def cells(self) -> Iterator[Cell]:
        for model, task in itertools.product(self.manifest.models, self.manifest.tasks):
            methods = [name for name in self.manifest.methods if self._is_measured(name, task)]
            for method in sorted(methods, key=functools.partial(self._depth, task=task)):
                for index, seed in itertools.product(range(len(self.points[method])), self._seeds(method)):
                    cell = self._cell(model, task, method, index, seed)
                    if cell is not None and self._excluding(cell) is None:
                        self._check_relatives(cell)
                        yield cell

    def _is_measured(self, method: str, task: str) -> bool:
        """Whether a method has anything to measure in a task; outputs of others, where it names a test."""
        outputs = self.manifest.methods[method].outputs
        return outputs is None or not outputs.keys().isdisjoint(self.manifest.test_names(task))

    def _depth(self, method: str, task: str) -> int:
        """How many cells come before one of this method."""
        relatives = [self.manifest.methods[method].from_, self._pairs_method(method, task)]
        return max((1 + self._depth(relative, task) for relative in relatives if relative), default=0)

    def _pairs_method(self, method: str, task: str) -> str | None:
        """The method whose samples make the pairs that this one learns from."""
        if (method, task) not in self._pairs_methods:
            entry, pairs = self.manifest.methods[method], self.manifest.tasks[task].pairs
            compares = entry.train and method_named(entry.method or method).data != "supervised"
            self._pairs_methods[method, task] = pairs.from_ if pairs and compares else None
        return self._pairs_methods[method, task]

    def _seeds(self, method: str) -> list[int]:
        seeds = self.manifest.seeds
        shared = self.manifest.from_seed == "first" and method in self.parents
        return seeds[:1] if shared or not self.manifest.methods[method].train else seeds

    def _excluding(self, cell: Cell) -> int | None:
        """The index of the first rule that leaves a cell out."""
        for number, rule in enumerate(self.manifest.exclude):
            if matches(rule.when, cell.facts):
                self.used_rules.add(f"exclude[{number}]")
                return number
        return None

    def _check_relatives(self, cell: Cell) -> None:
        for relative in (cell.parent, cell.pairs_from):
            number = self._excluding(relative) if relative else None
            if relative and number is not None:
                message = f"leaves out '{relative.method}', which '{cell.method}' needs in task '{cell.task}'"
                where = ("exclude", number)
                self.problems.append(
                    Problem(where, f"{message}; exclude that too, or keep '{relative.method}'")
                )

    def _cell(self, model: str, task: str, method: str, index: int, seed: int) -> Cell | None:
        count = len(self.points[method])
        if method in self.parents and count > 1:
            message = f"other methods start from '{method}', so it must have one point, not {count}"
            self.problems.append(Problem(("methods", method), message))
            return None
        key = (model, task, method, index, seed)
        if key not in self.made:
            try:
                self.made[key] = self._make(model, task, method, index, seed)
            except ValueFault as fault:
                self.problems.append(fault.problem)
                self.made[key] = None
        return self.made[key]

    def _make(self, model: str, task: str, name: str, index: int, seed: int) -> Cell:
        entry, (point, _) = self.manifest.methods[name], self.points[name][index]
        method = method_named(entry.method or name) if entry.train else None
        values = CellValues(name, method, self.manifest.training, self.manifest.tasks[task].generation, task)
        values.set_parameters({**entry.params})
        values.set_parameters(point)
        if self.manifest.overrides:
            self._override(values, {"model": model, "task": task, "method": name, "seed": seed})
        params, training, generation = values.checked()
        self.advice |= dict.fromkeys(values.advice)
        self.notes |= dict.fromkeys(values.notes)
        axes = self._axes_of(name, index, method)
        parent = self._relative(model, task, entry.from_, seed)
        pairs_from = self._relative(model, task, self._pairs_method(name, task), seed)
        train = method.name if method else None
        values_of = (axes, train, params, training, generation)
        return Cell(model, task, name, seed, *values_of, parent, pairs_from, entry.outputs or {})

    def _override(self, values: CellValues, named: Mapping[str, Any]) -> None:
        """Applies the rules that match; all of them look at the values as they were before."""
        facts = {**named, **values.facts()}
        for number, rule in enumerate(self.manifest.overrides):
            if matches(rule.when, facts):
                self.used_rules.add(f"overrides[{number}]")
                values.override(rule.values, ("overrides", number, "set"))

    def _axes_of(self, name: str, index: int, method: LossMethod | None) -> Mapping[str, Any]:
        """What varies at a point, under canonical names; the same for all models, tasks and seeds."""
        if (name, index) not in self._axes:
            axes = self.points[name][index][1]
            named = {canonical_name(method, k, value): value for k, value in axes.items()} if method else axes
            self._axes[name, index] = named
        return self._axes[name, index]

    def _relative(self, model: str, task: str, method: str | None, seed: int) -> Cell | None:
        """The cell of a parent method that goes with this seed."""
        if method is None:
            return None
        seeds = self._seeds(method)
        return self._cell(model, task, method, 0, seed if seed in seeds else seeds[0])

    def warnings(self) -> Iterator[str]:
        yield from self.advice
        for section in ("overrides", "exclude"):
            for number, _ in enumerate(getattr(self.manifest, section)):
                if f"{section}[{number}]" not in self.used_rules:
                    yield f"{section}[{number}] matches no cell"


_Point = tuple[dict[str, Any], dict[str, Any]]


def _points(entry: Method) -> tuple[list[_Point], int]:
    """(values, axes) of each point, and how many were repetitions.

    The points are the product of ``grid`` with the rows of ``zip``, then the rows of ``list``.
    """
    names = list(entry.grid)
    products = [dict(zip(names, values, strict=True)) for values in itertools.product(*entry.grid.values())]
    columns = entry.zipped.values()
    rows = [dict(zip(entry.zipped, values, strict=True)) for values in zip(*columns, strict=True)] or [{}]
    points = [{**product, **row} for product in products for row in rows]
    if entry.points:
        points = [point for point in points if point] + [dict(point) for point in entry.points]
    unique = list({str(canonical(sorted(point.items()))): point for point in points}.values())
    keys = sorted({key for point in unique for key in point})
    varying = [
        key for key in keys if len({str(canonical(p.get(key, entry.params.get(key)))) for p in unique}) > 1
    ]
    found = [(point, {key: point[key] for key in varying if key in point}) for point in unique]
    return found, len(points) - len(unique)
