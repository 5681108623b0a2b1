"""The jobs of a study, in order of their needs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.metrics import choose_metrics
from eval.metrics.learned import LearnedMetric
from experiments.grid import Cell, Grid, method_named
from experiments.job import Job
from experiments.problems import Problem
from experiments.schema import Manifest
from experiments.schema_resources import Limits
from experiments.schema_speed import AUTO
from experiments.selectors import check_names, matches
from experiments.unit_evaluation import task_metrics, used_definitions
from experiments.units import Study, Unit

# Stages that no GPU makes faster; a rule may give them some all the same.
_WITHOUT_GPUS = frozenset({"prepare", "report"})


class Graph:
    """All jobs of a grid, each once, needed jobs first.

    Attributes:
        problems: batches that do not divide over the GPUs that they are given.
        warnings: rules of ``resources`` that match no stage.
        report_limits: what the building of the report gets, where it is a job of its own.
    """

    def __init__(self, manifest: Manifest, grid: Grid, study: Study) -> None:
        self.manifest, self.grid, self.study = manifest, grid, study
        self.problems: list[Problem] = []
        self.jobs: dict[tuple[str, str], Job] = {}
        self._used_rules: set[int] = set()
        self._with_models: dict[str, bool] = {}
        self.of_cell: dict[str, tuple[Job, ...]] = {cell.name: self._cell_jobs(cell) for cell in grid.cells}
        self.report_limits = self._limits({"stage": "report"})
        unused = set(range(len(manifest.resources.rules))) - self._used_rules
        self.warnings = tuple(f"resources.rules[{number}] matches no stage" for number in sorted(unused))

    def select(self, only: Mapping[str, Any] | None) -> list[Job]:
        """The jobs of the matching cells (of them, the named stages) and everything those need, in order.

        Args:
            only: what ``selectors.parse_only`` made.

        Raises:
            ValueError: a value that no cell has, or values that no cell has together.
        """
        if not only:
            return list(self.jobs.values())
        facts = {cell.name: cell.facts for cell in self.grid.cells}
        check_names(only, list(facts.values()))
        when = {key: value for key, value in only.items() if key != "stage"}
        cells = [name for name, found in facts.items() if matches(when, found)]
        wanted = self._with_needed(job for name in cells for job in self.of_cell[name])
        if "stage" in only:
            wanted = self._with_needed(job for job in wanted if job.stage in only["stage"])
        if not wanted:
            given = ", ".join(f"{key}={value}" for key, values in only.items() for value in values)
            raise ValueError(f"--only: no cell has all of {given}")
        return wanted

    def _with_needed(self, jobs: Iterable[Job]) -> list[Job]:
        keep: set[tuple[str, str]] = set()
        for job in jobs:
            _add_needed(job, keep)
        return [job for key, job in self.jobs.items() if key in keep]

    # -- one kind of job each

    def _job(
        self,
        unit: Unit,
        stage: str,
        module: str,
        artefacts: Sequence[str],
        needs: Iterable[Job],
        facts: Mapping[str, Any],
        digest: str = "",
        group: str = "",
        like: str = "",
    ) -> Job:
        key = (str(unit.folder), stage)
        if key not in self.jobs:
            limits = self._limits({**facts, "stage": stage})
            label = f"{stage} {unit.document['name']}"
            argv: tuple[str, ...] = (str(unit.folder),)
            if stage == "train":
                module, argv = _launched(module, argv, limits)
            elif limits.nodes > 1:
                limits = limits.model_copy(update={"nodes": 1})  # only training runs over several
            if limits.gpus > 1 and stage == "generate" and group:
                argv = (*argv, "--tensor-parallel", str(limits.gpus))
            self.jobs[key] = Job(
                unit,
                stage,
                digest or unit.digest,
                module,
                argv,
                tuple(artefacts),
                tuple(needs),
                label,
                limits,
                f"{group} on {limits}" if group else "",
                f"{stage} {facts['model']} {facts['task']} {like}".rstrip(),
            )
        return self.jobs[key]

    def _known(self, unit: Unit, stage: str) -> Job | None:
        """The job, if it is there: thousands of cells need the same parent, and ask for all that it needs."""
        return self.jobs.get((str(unit.folder), stage))

    def _limits(self, facts: Mapping[str, Any]) -> Limits:
        default = self.manifest.resources.default
        changes: dict[str, Any] = {"gpus": 0, "nodes": 1} if facts["stage"] in _WITHOUT_GPUS else {}
        for number, rule in enumerate(self.manifest.resources.rules):
            if matches(rule.when, facts):
                self._used_rules.add(number)
                changes |= rule.values
        return default.model_copy(update=changes) if changes else default

    def _corpus(self, model: str, task: str) -> Job:
        artefacts = ("prepare.json", "sft.jsonl", "train.jsonl", "tokenizer")
        return self._job(
            self.study.corpus(model, task),
            "prepare",
            "experiments.prepare",
            artefacts,
            (),
            {"model": model, "task": task},
        )

    def _test(self, model: str, task: str, name: str) -> Job:
        unit = self.study.test(model, task, name)
        facts = {"model": model, "task": task}
        return self._job(
            unit,
            "prepare",
            "experiments.prepare",
            ("prepare.json", "rows.jsonl"),
            (self._corpus(model, task),),
            facts,
        )

    def _pairs(self, parent: Cell) -> Job:
        needs = (self._train(parent), self._corpus(parent.model, parent.task))
        return self._job(
            self.study.pairs(parent),
            "pairs",
            "experiments.pairs",
            ("pairs.json", "pairs.jsonl"),
            needs,
            parent.facts,
        )

    def _reference(self, cell: Cell) -> Job:
        unit = self.study.reference(cell)
        if known := self._known(unit, "reference"):
            return known
        data = self._pairs(cell.pairs_from) if cell.pairs_from else self._corpus(cell.model, cell.task)
        needs = (data, self._train(cell.parent)) if cell.parent else (data,)
        return self._job(
            unit,
            "reference",
            "po.reference",
            ("reference.json", *(f"{kind}.npy" for kind in cell.reference_kinds)),
            needs,
            cell.facts,
        )

    def _train(self, cell: Cell) -> Job:
        unit = self.study.cell(cell)
        if known := self._known(unit, "train"):
            return known
        needs = [self._corpus(cell.model, cell.task)]
        needs += [self._train(cell.parent)] if cell.parent else []
        needs += [self._pairs(cell.pairs_from)] if cell.pairs_from else []
        needs += [self._reference(cell)] if cell.needs_reference else []
        own_weights = cell.train is not None or self.manifest.models[cell.model].from_scratch is not None
        artefacts = ("model.json", "train.json", *(["model"] if own_weights else []))
        job = self._job(unit, "train", "po.train", artefacts, needs, cell.facts, like=_like(cell))
        total, each = cell.training.global_batch_size, cell.training.per_device_batch_size
        n_processes = job.limits.n_processes
        one = 1 if each == AUTO else each
        if cell.train and n_processes > 1 and total % (one * n_processes):
            what = "GPUs" if job.gpus else "processes"
            split = f"{n_processes} {what}" + ("" if each == AUTO else f" x {each} (per_device_batch_size)")
            message = f"global_batch_size {total} is not divisible by {split}"
            self.problems.append(Problem(("resources",), message))
        return job

    def _cell_jobs(self, cell: Cell) -> tuple[Job, ...]:
        unit = self.study.cell(cell)
        train = () if cell.outputs else (self._train(cell),)
        hashes, tests = unit.document["hashes"], unit.document["tests"]
        needs = [*train, *(self._test(cell.model, cell.task, name) for name in tests)]
        folders = [test["folder"] for test in tests.values()]
        outputs = [
            f"{folder}/{name}" for folder in folders for name in ("generation.json", "generations.jsonl")
        ]
        generate = self._job(
            unit, "generate", "eval.generate", outputs, needs, cell.facts, hashes["generate"], _engine(cell)
        )
        scores = [f"{folder}/{name}" for folder in folders for name in ("scores.json", "segments.parquet")]
        group = "score" if self._asks_models(cell.task) else ""
        score = self._job(
            unit, "score", "eval.score", scores, (generate,), cell.facts, hashes["score"], group
        )
        return *train, generate, score

    def _asks_models(self, task: str) -> bool:
        """Whether a metric of a task has a model, which is worth loading once for several cells."""
        if task not in self._with_models:
            names = task_metrics(self.manifest, task)
            definitions = used_definitions(self.manifest, names).get("metric_definitions")
            metrics = choose_metrics(names, definitions)
            self._with_models[task] = any(isinstance(metric, LearnedMetric) for metric in metrics)
        return self._with_models[task]


def _launched(module: str, argv: tuple[str, ...], limits: Limits) -> tuple[str, tuple[str, ...]]:
    """The command of a stage that may run as several processes."""
    if limits.n_processes == 1 and limits.accelerate_config is None:
        return module, argv
    options = ["--processes", str(max(1, limits.gpus))]
    options += ["--nodes", str(limits.nodes)] if limits.nodes > 1 else []
    options += ["--config", limits.accelerate_config] if limits.accelerate_config else []
    return "experiments.launch", (*options, module, *argv)


def _like(cell: Cell) -> str:
    """What decides how long a cell trains, apart from its model and its task."""
    if cell.train is None:
        return "untrained"
    method, settings = method_named(cell.train), cell.training
    steps = f"{settings.max_steps} steps" if settings.max_steps else f"{settings.epochs:g} epochs"
    live = " with a live reference" if method.needs_live_reference else ""
    return f"{cell.data_form}{live}, {steps} of {settings.global_batch_size} in {settings.precision}"


def _engine(cell: Cell) -> str:
    """What generation loads that other cells of the model can use too; only vLLM changes weights in place."""
    return f"generate {cell.model}" if cell.generation.backend == "vllm" and not cell.outputs else ""


def _add_needed(job: Job, keep: set[tuple[str, str]]) -> None:
    if job.key not in keep:
        keep.add(job.key)
        for needed in job.needs:
            _add_needed(needed, keep)
