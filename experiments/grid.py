"""Manifest -> cells, in the order in which they can be trained. Pure: reads no file and starts nothing."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.identity import canonical, number_text
from experiments.problems import Problem
from experiments.schema import Generation, Manifest, Method, Training
from experiments.selectors import matches
from po.methods import resolve


class GridError(ValueError):
    """A grid that cannot be expanded; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.place}: {p.message}" for p in problems))


@dataclass(frozen=True)
class Cell:
    """One point of the study: a model, a task, a method with its values, a seed.

    Attributes:
        axes: the values that tell this cell from its method's other cells.
        train: id in po.methods, or None for a model that is only measured.
        params: hyperparameters of the loss, defaults spelled out.
        options: the method's settings of training (``nll_reduction``).
        training: training settings, all spelled out.
        parent: the cell whose weights this one starts from.
        pairs_from: the cell whose samples make its preference pairs, if the task makes any and the method needs them.
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

    @property
    def name(self) -> str:
        """``tinyllama.mt.dpo.beta0.1-learning_rate5e-7.s42``: only the axes that vary; no seed where nothing is trained."""
        axes = "-".join(f"{key}{number_text(value)}" for key, value in self.axes.items())
        parts = [self.model, self.task, self.method, axes, f"s{self.seed}" if self.train else ""]
        return ".".join(part for part in parts if part)

    @property
    def facts(self) -> dict[str, Any]:
        """What ``when`` and ``--only`` can match."""
        named = {"model": self.model, "task": self.task, "method": self.method, "seed": self.seed}
        return named | {f"params.{key}": value for key, value in {**self.training.model_dump(), **self.params}.items()}

    @property
    def needs_reference(self) -> bool:
        """Whether its loss reads reference log-probabilities."""
        return self.train is not None and resolve(self.train).needs_reference

    @property
    def is_paired(self) -> bool:
        """Whether it learns from preference pairs."""
        return self.train is not None and resolve(self.train).paired


@dataclass(frozen=True)
class Grid:
    """All cells, and what the user should know about how they came about."""

    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]


def expand_grid(manifest: Manifest) -> Grid:
    """Every cell of a manifest, parents before children.

    Raises:
        GridError: a parent with several points, batch sizes that do not divide, no cell left.
    """
    builder = _Builder(manifest)
    cells = tuple(builder.cells())
    if builder.problems:
        raise GridError(builder.problems)
    if not cells:
        raise GridError([Problem(("exclude",), "every cell is excluded; nothing is left to run")])
    return Grid(cells, tuple(builder.warnings()))


class _Builder:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.problems: list[Problem] = []
        self.made: dict[tuple[Any, ...], Cell] = {}
        self.used_rules: set[str] = set()
        self.duplicates: list[str] = []
        self.points = {name: _points(method) for name, method in manifest.methods.items()}
        parents = {method.from_ for method in manifest.methods.values()}
        parents |= {task.pairs.from_ for task in manifest.tasks.values() if task.pairs}
        self.parents = parents - {None}

    def cells(self) -> Iterator[Cell]:
        order = sorted(self.manifest.methods, key=self._depth)
        for model, task, method in itertools.product(self.manifest.models, self.manifest.tasks, order):
            for index, seed in itertools.product(range(len(self.points[method])), self._seeds(method)):
                cell = self._cell(model, task, method, index, seed)
                if cell is not None:
                    yield cell

    def _depth(self, method: str) -> int:
        parent = self.manifest.methods[method].from_
        return 1 + self._depth(parent) if parent else 0

    def _seeds(self, method: str) -> list[int]:
        seeds = self.manifest.seeds
        only_one = not self.manifest.methods[method].train or (self.manifest.from_seed == "first" and method in self.parents)
        return seeds[:1] if only_one else seeds

    def _cell(self, model: str, task: str, method: str, index: int, seed: int) -> Cell | None:
        if method in self.parents and len(self.points[method]) > 1:
            where = ("methods", method)
            self.problems.append(Problem(where, f"other methods start from '{method}', so it must have one point, not {len(self.points[method])}"))
            return None
        key = (model, task, method, index, seed)
        if key not in self.made:
            self.made[key] = self._make(model, task, method, index, seed)
        cell = self.made[key]
        for number, rule in enumerate(self.manifest.exclude):
            if matches(rule.when, cell.facts):
                self.used_rules.add(f"exclude[{number}]")
                return None
        return cell

    def _make(self, model: str, task: str, name: str, index: int, seed: int) -> Cell:
        entry, (point, axes) = self.manifest.methods[name], self.points[name][index]
        training = self.manifest.training.model_dump()
        generation = self.manifest.tasks[task].generation.model_dump()
        params = {}
        for key, value in {**entry.params, **point}.items():
            (training if key in Training.model_fields else params)[key] = value
        facts = {"model": model, "task": task, "method": name, "seed": seed, **{f"params.{k}": v for k, v in {**training, **params}.items()}}
        for number, rule in enumerate(self.manifest.overrides):
            if matches(rule.when, facts):
                self.used_rules.add(f"overrides[{number}]")
                for dotted, value in rule.values.items():
                    section, _, key = dotted.partition(".")
                    {"training": training, "generation": generation, "params": params}[section][key] = value
        method_id = resolve(entry.method or name).name if entry.train else None
        if method_id:
            params, _ = resolve(entry.method or name).canonical(params)
            params = resolve(entry.method or name).check_params(params)
        settings = Training.model_validate(training)
        if settings.global_batch_size % settings.per_device_batch_size:
            message = f"global_batch_size {settings.global_batch_size} is not divisible by per_device_batch_size {settings.per_device_batch_size}"
            self.problems.append(Problem(("methods", name), message))
        parent = self._relative(model, task, entry.from_, seed)
        pairs = self.manifest.tasks[task].pairs
        needs_pairs = pairs is not None and method_id is not None and resolve(method_id).paired
        pairs_from = self._relative(model, task, pairs.from_, seed) if pairs and needs_pairs else None
        return Cell(model, task, name, seed, axes, method_id, params, settings, Generation.model_validate(generation), parent, pairs_from)

    def _relative(self, model: str, task: str, method: str | None, seed: int) -> Cell | None:
        """The cell of a parent method that goes with this seed."""
        if method is None:
            return None
        seeds = self._seeds(method)
        return self._cell(model, task, method, 0, seed if seed in seeds else seeds[0])

    def warnings(self) -> Iterator[str]:
        for section in ("overrides", "exclude"):
            for number, _ in enumerate(getattr(self.manifest, section)):
                if f"{section}[{number}]" not in self.used_rules:
                    yield f"{section}[{number}] matches no cell"


def _points(entry: Method) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(values, axes) of each point: the product of ``grid`` with the rows of ``zip``, then the rows of ``list``."""
    names = list(entry.grid)
    products = [dict(zip(names, values, strict=True)) for values in itertools.product(*entry.grid.values())]
    rows = [dict(zip(entry.zipped, values, strict=True)) for values in zip(*entry.zipped.values(), strict=True)] or [{}]
    points = [{**product, **row} for product in products for row in rows]
    if entry.points:
        points = [point for point in points if point] + [dict(point) for point in entry.points]
    unique = list({str(canonical(sorted(point.items()))): point for point in points}.values())
    keys = sorted({key for point in unique for key in point})
    varying = [key for key in keys if len({str(canonical(p.get(key, entry.params.get(key)))) for p in unique}) > 1]
    return [(point, {key: point[key] for key in varying if key in point}) for point in unique]
