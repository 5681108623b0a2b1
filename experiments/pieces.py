"""What the jobs of a study need on this machine beside its packages: checkpoints, environments, engines."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence

from eval.metrics import choose_metrics, expand_sets
from eval.requirements import missing
from experiments.check_metrics import language_of
from experiments.grid import Cell
from experiments.job import Job
from experiments.loading import Loaded
from experiments.problems import Problem
from experiments.raw_entries import Place
from experiments.schema import Manifest
from experiments.schema_tasks import Task
from experiments.stage_status import effective_state
from experiments.unit_evaluation import task_metrics, used_definitions

_VLLM_REMEDY = "vLLM is not installed; run: make setup-vllm (or leave backend at transformers)"


def missing_pieces(
    loaded: Loaded, jobs: Sequence[Job], states: Mapping[tuple[str, str], str] | None = None
) -> list[Problem]:
    """What is not here and will be needed, each once, at the place of the manifest that asks for it.

    Args:
        loaded: the study.
        jobs: those that are to be done; what only finished stages needed is not looked for.
        states: of the jobs by their keys, where they are known already.
    """
    done = _is_done if states is None else lambda job: states[job.key] == "done"
    open_jobs = {job.key for job in jobs if not done(job)}
    scored: dict[str, None] = {}
    ranked: dict[str, None] = {}
    found: list[Problem] = []
    for cell in loaded.grid.cells:
        stages = {job.stage for job in loaded.graph.of_cell[cell.name] if job.key in open_jobs}
        if "score" in stages:
            scored[cell.task] = None
        if cell.pairs_from and (str(loaded.study.pairs(cell.pairs_from).folder), "pairs") in open_jobs:
            ranked[cell.task] = None
        if "generate" in stages and _lacks_engine(cell):
            found.append(Problem(("tasks", cell.task, "generation", "backend"), _VLLM_REMEDY))
    for task in scored:
        found += _of_metrics(loaded.manifest, task)
    for task in ranked:
        found += _of_scorer(loaded.manifest, task)
    return list(dict.fromkeys(found))


def _is_done(job: Job) -> bool:
    try:
        return effective_state(job.folder, job.stage, job.stage_hash) == "done"
    except ValueError:
        return False  # a damaged status; the runner sets it aside


def _of_metrics(manifest: Manifest, name: str) -> Iterator[Problem]:
    task = manifest.tasks[name]
    if task.metrics is None:
        for metric in task_metrics(manifest, name):
            yield from _of_metric(manifest, metric, task, ("tasks", name))
    for index, given in enumerate(task.metrics or ()):
        for metric in expand_sets([given]):
            yield from _of_metric(manifest, metric, task, ("tasks", name, "metrics", index))


def _of_scorer(manifest: Manifest, name: str) -> Iterator[Problem]:
    task = manifest.tasks[name]
    if task.pairs is not None:
        yield from _of_metric(manifest, task.pairs.scorer, task, ("tasks", name, "pairs", "scorer"))


def _of_metric(manifest: Manifest, name: str, task: Task, where: Place) -> Iterator[Problem]:
    language = language_of(task.type, task.source_lang, task.target_lang)
    definitions = used_definitions(manifest, [name]).get("metric_definitions")
    for piece in missing(choose_metrics([name], definitions)[0].requirements(language)):
        yield Problem(where, f"{name} needs the {piece.kind} {piece.name}; {piece.remedy}")


def _lacks_engine(cell: Cell) -> bool:
    uses = cell.generation.backend == "vllm" and not cell.outputs
    return uses and importlib.util.find_spec("vllm") is None
