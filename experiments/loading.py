"""Manifest path -> study: what every command of this package begins with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.atomic import write_json, write_text
from experiments.graph import Graph
from experiments.grid import Cell, Grid, GridError, expand_grid
from experiments.identity import file_digest
from experiments.job import Job
from experiments.locations import expand, is_local
from experiments.manifest import locate, read_manifest
from experiments.output_checks import count_problems
from experiments.problems import ManifestError, Problem
from experiments.schema import Manifest
from experiments.smoke import smoke_manifest
from experiments.units import Study

EXIT_BAD_MANIFEST = 2


@dataclass(frozen=True)
class Loaded:
    """A manifest with its cells, folders and jobs."""

    path: Path
    manifest: Manifest
    grid: Grid
    study: Study
    graph: Graph

    @property
    def root(self) -> Path:
        """``runs/<name>``."""
        return self.study.root

    def write_plan(self) -> None:
        """Leaves the list of cells and the manifest beside the results, for the report and for status."""
        self.root.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            write_text(self.root / "manifest.yaml", self.path.read_text(encoding="utf-8"))
        write_json(self.root / "plan.json", self._plan())

    def entry(self, job: Job) -> dict[str, Any]:
        """A job as it stands in ``plan.json``, but for the jobs that it needs."""
        return {
            "folder": str(job.folder.relative_to(self.root)),
            "stage": job.stage,
            "stage_hash": job.stage_hash,
            "label": job.label,
            "cpus": job.limits.cpus * job.limits.nodes,
            "gpus": job.limits.gpus * job.limits.nodes,
            "shape": job.shape,
        }

    def _plan(self) -> dict[str, Any]:
        cells = []
        for cell in self.grid.cells:
            unit = self.study.cell(cell)
            cells.append(
                {
                    "name": cell.name,
                    "folder": str(unit.folder.relative_to(self.root)),
                    "parent": unit.document["parent"],
                    "model": cell.model,
                    "task": cell.task,
                    "method": cell.method,
                    "seed": unit.document["seed"],
                    "axes": dict(cell.axes),
                    "train_method": cell.train,
                    "hashes": dict(unit.document["hashes"]),
                }
            )
        number = {key: index for index, key in enumerate(self.graph.jobs)}
        jobs = [
            self.entry(job) | {"needs": [number[needed.key] for needed in job.needs]}
            for job in self.graph.jobs.values()
        ]
        return {
            "schema": 1,
            "name": self.manifest.name,
            "manifest_sha256": file_digest(self.path),
            "report": self.manifest.report.model_dump(mode="json"),
            "warnings": list(self.grid.warnings),
            "cells": cells,
            "jobs": jobs,
        }


def load(path: Path, runs: Path, *, smoke: bool = False) -> Loaded:
    """Reads, checks and expands a manifest; creates nothing.

    Raises:
        ManifestError: all faults, with their lines.
    """
    manifest = read_manifest(path)
    if smoke:
        manifest = smoke_manifest(manifest)
    try:
        grid = expand_grid(manifest)
        if problems := count_problems(manifest, grid.cells):
            raise GridError(problems)
        study = Study(manifest, runs / manifest.name)
        grid = distinct_cells(grid, study)
        graph = Graph(manifest, grid, study)
        if graph.problems:
            raise GridError(graph.problems)
    except GridError as error:
        raise ManifestError(path, locate(path, error.problems)) from None
    warnings = (*grid.warnings, *unpinned(manifest), *graph.warnings)
    return Loaded(path, manifest, replace(grid, warnings=warnings), study, graph)


def distinct_cells(grid: Grid, study: Study) -> Grid:
    """The grid with every experiment once: cells of one hash would be one folder.

    Raises:
        GridError: two cells train the same weights and measure them in different ways.
    """
    first: dict[str, Cell] = {}
    problems, warnings = [], list(grid.warnings)
    for cell in grid.cells:
        unit = study.cell(cell)
        same = first.setdefault(unit.digest, cell)
        if same is cell:
            continue
        if unit.document["hashes"] != study.cell(same).document["hashes"]:
            message = f"'{cell.name}' trains the same weights as '{same.name}' but generates in another way"
            problems.append(
                Problem(("methods", cell.method), f"{message}; one folder cannot hold both, leave one out")
            )
        warnings.append(
            f"'{cell.name}' is the same experiment as '{same.name}'; it is run once, under that name"
        )
    if problems:
        raise GridError(problems)
    return replace(grid, cells=tuple(first.values()), warnings=tuple(warnings))


def unpinned(manifest: Manifest) -> list[str]:
    """Warnings of models and data sets on a hub without a revision: what they hold may change."""
    found = []
    for name, model in manifest.models.items():
        if model.id and not model.revision and not Path(expand(model.id)).is_dir():
            found.append(f"models.{name}: '{model.id}' without a revision; give the commit, it may change")
    for name, task in manifest.tasks.items():
        splits = {
            "sft": task.sft,
            "train": task.train,
            "dev": task.dev,
            **{f"tests.{k}": v for k, v in task.tests.items()},
        }
        for split, source in splits.items():
            if source and not source.revision and not _is_here(expand(source.dataset)):
                found.append(f"tasks.{name}.{split}: '{source.dataset}' without a revision; give the commit")
    return found


def _is_here(dataset: str) -> bool:
    """Whether a data set is a file or a saved folder, whose content is hashed."""
    return is_local(dataset) or Path(dataset).is_dir()
