"""Manifest path -> study: what every command of this package begins with."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.atomic import write_json
from experiments.graph import Graph
from experiments.grid import Grid, GridError, expand_grid
from experiments.identity import file_digest
from experiments.manifest import read_manifest
from experiments.problems import ManifestError
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
        """Leaves the list of cells and the manifest itself beside the results, for the report and for status."""
        self.root.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            shutil.copyfile(self.path, self.root / "manifest.yaml")
        write_json(self.root / "plan.json", self._plan())

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
                    "seed": cell.seed,
                    "axes": dict(cell.axes),
                    "train_method": cell.train,
                    "hashes": dict(unit.document["hashes"]),
                }
            )
        report = json.loads(self.manifest.report.model_dump_json())
        jobs = [{"folder": str(j.folder.relative_to(self.root)), "stage": j.stage, "stage_hash": j.stage_hash, "label": j.label} for j in self.graph.jobs.values()]
        return {
            "schema": 1,
            "name": self.manifest.name,
            "manifest_sha256": file_digest(self.path),
            "report": report,
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
    except GridError as error:
        raise ManifestError(path, error.problems) from None
    study = Study(manifest, runs / manifest.name)
    return Loaded(path, manifest, grid, study, Graph(manifest, grid, study))
