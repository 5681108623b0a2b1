"""The settings of a site (partition, account, modules, container) in a file of the user's."""

import os
from pathlib import Path

from pydantic import ValidationError

from experiments.problems import ManifestError, Problem, nearest
from experiments.schema_resources import Limits, Slurm
from experiments.yaml_source import read_document

ROOT = Path(__file__).resolve().parents[1]


def site_file(given: Path | None) -> Path | None:
    """The file that holds: the one given, ``$GRID_SITE``, or ``slurm/site.yaml`` if it is there."""
    if given is not None:
        return given
    if named := os.environ.get("GRID_SITE"):
        return Path(named)
    usual = ROOT / "slurm" / "site.yaml"
    return usual if usual.is_file() else None


def settings(manifest: Slurm, site: Path | None) -> Slurm:
    """The site's settings with those of the manifest's ``slurm:`` in their place, where both say something.

    Args:
        manifest: as read.
        site: YAML with the same words; None for nothing.

    Raises:
        ManifestError: all faults of the file, with their lines.
    """
    if site is None:
        return manifest
    if not site.is_file():
        raise ManifestError(site, [Problem((), "there is no such file; copy slurm/site.example.yaml")])
    document = read_document(site)
    problems = list(document.problems) if _says_something(site) else []
    found = Slurm()
    try:
        found = Slurm.model_validate(document.data or {})
    except ValidationError as error:
        problems += [_problem(dict(fault)) for fault in error.errors()]
    if problems:
        raise ManifestError(site, [Problem(p.where, p.message, document.line(p.where)) for p in problems])
    return found.model_copy(update={name: getattr(manifest, name) for name in manifest.model_fields_set})


def _problem(fault: dict[str, object]) -> Problem:
    where = fault["loc"]
    assert isinstance(where, tuple)
    if fault["type"] == "extra_forbidden" and where[-1] in Limits.model_fields:
        name = where[-1]
        return Problem(
            where, f"'{name}' belongs to the study: resources: {{default: {{{name}: ...}}}} in its manifest"
        )
    if fault["type"] == "extra_forbidden":
        return Problem(where, f"unknown key '{where[-1]}'; {nearest(where[-1], Slurm.model_fields)}")
    return Problem(where, str(fault["msg"]).removeprefix("Value error, "))


def _says_something(site: Path) -> bool:
    """Whether there is more than comments in it."""
    lines = (line.strip() for line in site.read_text(encoding="utf-8").splitlines())
    return any(line and not line.startswith("#") for line in lines)
