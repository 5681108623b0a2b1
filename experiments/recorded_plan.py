"""The plan that a study was last given, ``plan.json``, for the commands that need no manifest."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.atomic import read_json
from experiments.selectors import check_names, matches

_KEYS = ("folder", "stage", "stage_hash", "label")


class NoExperimentError(ValueError):
    """A folder that holds no plan."""


class RecordedPlan:
    """The cells and jobs of ``plan.json``; a job is known by its index, needed jobs have smaller ones.

    Attributes:
        root: ``runs/<name>``.
        name: of the study.
        cells: entries of the cells, as in the file.
        jobs: entries of the jobs, as in the file; folders relative to ``root``.
        index: (folder, stage) -> index of the job.
    """

    def __init__(self, root: Path, document: Mapping[str, Any]) -> None:
        self.root = root
        try:
            self.name: str = document["name"]
            self.cells: list[dict[str, Any]] = document["cells"]
            self.jobs: list[dict[str, Any]] = document["jobs"]
            self.needs = [tuple(job.get("needs", ())) for job in self.jobs]
            self.index = {(job["folder"], job["stage"]): n for n, job in enumerate(self.jobs)}
            sound = all(isinstance(job[key], str) for job in self.jobs for key in _KEYS)
            sound &= all(0 <= need < n for n, needs in enumerate(self.needs) for need in needs)
            self._facts = {cell["folder"]: _facts(cell) for cell in self.cells}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{root / 'plan.json'}: not a plan ({error!r}); {_remedy(root)}") from error
        if not sound:
            raise ValueError(f"{root / 'plan.json'}: jobs that do not fit together; {_remedy(root)}")

    def with_needed(self, indices: Iterable[int]) -> set[int]:
        """The jobs and everything that they need, directly or not."""
        keep: set[int] = set()
        ahead = list(indices)
        while ahead:
            index = ahead.pop()
            if index not in keep:
                keep.add(index)
                ahead += self.needs[index]
        return keep

    def select(self, only: Mapping[str, Any]) -> set[int]:
        """The jobs of the matching cells and what those need; with ``stage`` the named stages of them.

        Args:
            only: what ``selectors.parse_only`` made; hyperparameters are the axes of the grid.

        Raises:
            ValueError: a value that no cell has, or values that no cell has together.
        """
        return self._of_stages(only, self.with_needed(self._of_cells(self._matching(only))))

    def select_alone(self, only: Mapping[str, Any]) -> set[int]:
        """As ``select``, but of what cells share only the jobs that no other cell needs.

        Raises:
            ValueError: as ``select``.
        """
        matching = self._matching(only)
        own = self._of_cells(matching)
        others = self.with_needed(self._of_cells(self._facts.keys() - matching))
        shared = {n for n in self.with_needed(own) - others if self.jobs[n]["folder"] not in self._facts}
        return self._of_stages(only, own | shared)

    def _matching(self, only: Mapping[str, Any]) -> set[str]:
        check_names(only, list(self._facts.values()))
        when = {key: value for key, value in only.items() if key != "stage"}
        return {folder for folder, facts in self._facts.items() if matches(when, facts)}

    def _of_cells(self, folders: Iterable[str]) -> set[int]:
        wanted = set(folders)
        return {n for n, job in enumerate(self.jobs) if job["folder"] in wanted}

    def _of_stages(self, only: Mapping[str, Any], indices: set[int]) -> set[int]:
        stages = only.get("stage")
        found = {n for n in indices if stages is None or self.jobs[n]["stage"] in stages}
        if not found:
            given = ", ".join(f"{key}={value}" for key, values in only.items() for value in values)
            raise ValueError(f"--only: no cell has all of {given}")
        return found


def read_plan(root: Path) -> RecordedPlan:
    """The plan of ``runs/<name>``.

    Raises:
        NoExperimentError: there is none; names the experiments that are near.
        ValueError: it is damaged.
    """
    try:
        document = read_json(root / "plan.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NoExperimentError(f"{root} holds no experiment (no plan.json); {_near(root)}") from None
    except ValueError as error:
        raise ValueError(f"{root / 'plan.json'} is damaged ({error.__cause__}); {_remedy(root)}") from error
    return RecordedPlan(root, document)


def _near(root: Path) -> str:
    found = sorted(str(path.parent) for parent in (root, root.parent) for path in parent.glob("*/plan.json"))
    known = f"there is: {', '.join(found[:10])}" if found else "none is near it"
    return f"{known}; a new one is made by: python -m experiments.run MANIFEST"


def _remedy(root: Path) -> str:
    return f"let experiments.run or sbatch slurm/grid.sh write it again from {root / 'manifest.yaml'}"


def _facts(cell: Mapping[str, Any]) -> dict[str, Any]:
    named = {key: cell[key] for key in ("model", "task", "method", "seed")}
    return named | {f"params.{key}": value for key, value in cell["axes"].items()}
