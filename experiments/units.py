"""What each folder of an experiment is, as the JSON document that stands in it, and the content hash that names it.

A hash holds what changes the folder's content and nothing else: no names, no paths, no resources.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.decoding import Decoding
from eval.metrics import default_metrics
from experiments.checks import expand, is_local
from experiments.generators import GENERATORS
from experiments.grid import Cell
from experiments.identity import SCHEMA, content_hash, file_digest, find_folder, folder_name
from experiments.prompts import template_text
from experiments.schema import Manifest, Model, Source, Task
from po.methods import METHODS

# Settings of training that change how a cell is computed, not what comes out.
_NOT_IDENTITY = {"per_device_batch_size", "logging_steps", "save_steps", "retain", "gradient_checkpointing"}


@dataclass(frozen=True)
class Unit:
    """One folder: where it is, its document, the hash of its content."""

    kind: str
    folder: Path
    digest: str
    document: Mapping[str, Any]

    @property
    def document_path(self) -> Path:
        """``cell.json`` for cells, ``unit.json`` for the rest."""
        return self.folder / ("cell.json" if self.kind == "cell" else "unit.json")


class Study:
    """The folders of one manifest below ``root`` (``runs/<name>``); reads digests of local data, writes nothing."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.manifest, self.root = manifest, root
        self._digests: dict[Path, str] = {}
        self._units: dict[tuple[str, ...], Unit] = {}

    def corpus(self, model: str, task: str) -> Unit:
        """Training data of a task, tokenized for a model."""
        return self._once(("data", model, task), lambda: self._corpus(model, task))

    def test(self, model: str, task: str, name: str) -> Unit:
        """A test set of a task, tokenized for a model."""
        return self._once(("data", model, task, name), lambda: self._test(model, task, name))

    def pairs(self, parent: Cell) -> Unit:
        """Preference pairs sampled from a cell's model."""
        return self._once(("pairs", parent.name), lambda: self._pairs(parent))

    def reference(self, cell: Cell) -> Unit:
        """Log-probabilities of a cell's training pairs under the model it starts from."""
        data, model = self._train_data(cell), self._start(cell)
        name = f"{cell.parent.name if cell.parent else cell.model}--{data.folder.name}"
        return self._once(("reference", name), lambda: self._reference(cell, data, model, name))

    def cell(self, cell: Cell) -> Unit:
        """A cell: training, generations, scores."""
        return self._once(("cells", cell.name), lambda: self._cell(cell))

    def test_names(self, task: str) -> list[str]:
        """Names of the test sets of a task; ``dev`` is one of them where the report selects on it."""
        entry = self.manifest.tasks[task]
        names = ["test"] if entry.data else list(entry.tests)
        return names + (["dev"] if self.manifest.report.select and (entry.data or entry.dev) else [])

    def metrics(self, task: str) -> list[str]:
        """Metrics of a task: the manifest's, or the default set of its type."""
        entry = self.manifest.tasks[task]
        return list(entry.metrics) if entry.metrics is not None else list(default_metrics(entry.type, entry.target_lang))

    def _once(self, key: tuple[str, ...], make: Any) -> Unit:
        if key not in self._units:
            self._units[key] = make()
        return self._units[key]

    def _unit(self, section: str, name: str, digest: str, document: Mapping[str, Any], kind: str) -> Unit:
        folder = find_folder(self.root / section, name, digest)
        found = {"schema": SCHEMA, "kind": kind, "name": name, "hash": digest, **document}
        return Unit(kind, folder, digest, found)

    def _inside(self, unit: Unit) -> str:
        return str(unit.folder.relative_to(self.root))

    # -- identities -------------------------------------------------------------------------------------------------

    def _model_identity(self, model: Model) -> dict[str, Any]:
        spec = model.model_dump()
        path = Path(expand(model.id)) if model.id else None
        if path is not None and path.is_dir():
            spec |= {"id": None, "digest": self._digest(path)}
        return spec

    def _source_identity(self, source: Source | None) -> dict[str, Any] | None:
        if source is None:
            return None
        spec = source.model_dump()
        dataset = expand(source.dataset)
        if is_local(dataset):
            spec |= {"dataset": None, "digest": self._digest(Path(dataset))}
        return spec

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]

    @cached_property
    def _schema(self) -> dict[str, int]:
        return {"schema": SCHEMA}

    # -- documents --------------------------------------------------------------------------------------------------

    def _corpus(self, model_name: str, task_name: str) -> Unit:
        model, task = self.manifest.models[model_name], self.manifest.tasks[task_name]
        rendering = {
            "type": task.type,
            "source_lang": task.source_lang,
            "target_lang": task.target_lang,
            "prompt": template_text(task.prompt, task.type),
            "chat_template": self._chat_template(model),
            "max_prompt_length": task.max_prompt_length,
            "max_completion_length": task.max_completion_length,
        }
        splits = _split_sources(task)
        content = {
            **self._schema,
            "rendering": rendering,
            "tokenizer": _tokenizer_identity(self._model_identity(model)),
            "splits": {name: self._split_identity(source) for name, source in splits.items()},
        }
        document = {
            "model": model.model_dump(),
            "rendering": rendering,
            "splits": {name: _source_document(source) for name, source in splits.items()},
        }
        return self._unit("data", f"{model_name}.{task_name}", content_hash(content), document, "corpus")

    def _split_identity(self, source: Source | dict[str, Any]) -> Any:
        if isinstance(source, Source):
            return self._source_identity(source)
        return source | {"generator_version": GENERATORS[source["generator"]].version}

    def _test(self, model_name: str, task_name: str, name: str) -> Unit:
        corpus, task = self.corpus(model_name, task_name), self.manifest.tasks[task_name]
        source: Source | dict[str, Any]
        if task.data is not None:
            source = _generated(task, name)
        else:
            declared = task.dev if name == "dev" else task.tests[name]
            assert declared is not None
            source = declared
        digest = content_hash({**self._schema, "corpus": corpus.digest, "source": self._split_identity(source)})
        document = {"corpus": self._inside(corpus), "test": name, "source": _source_document(source)}
        return self._unit("data", f"{model_name}.{task_name}.{name}", digest, document, "test")

    def _chat_template(self, model: Model) -> str | None:
        if model.chat_template is None or "{" in model.chat_template:
            return model.chat_template
        return Path(expand(model.chat_template)).read_text(encoding="utf-8")

    def _pairs(self, parent: Cell) -> Unit:
        task = self.manifest.tasks[parent.task]
        assert task.pairs is not None
        recipe = task.pairs.model_dump(by_alias=False, exclude={"from_", "batch_size"})
        recipe["max_new_tokens"] = task.max_completion_length
        above, corpus = self.cell(parent), self.corpus(parent.model, parent.task)
        content = {**self._schema, "parent": above.digest, "corpus": corpus.digest, "recipe": recipe}
        document = {
            "parent": self._inside(above),
            "corpus": self._inside(corpus),
            "recipe": recipe | {"batch_size": task.pairs.batch_size},
            "target_lang": task.target_lang,
        }
        return self._unit("pairs", parent.name, content_hash(content), document, "pairs")

    def _train_data(self, cell: Cell) -> Unit:
        """Where a cell's training rows are: sampled pairs, or the prepared data of its task."""
        return self.pairs(cell.pairs_from) if cell.pairs_from else self.corpus(cell.model, cell.task)

    def _start(self, cell: Cell) -> Unit | None:
        return self.cell(cell.parent) if cell.parent else None

    def _reference(self, cell: Cell, data: Unit, start: Unit | None, name: str) -> Unit:
        model = self.manifest.models[cell.model]
        content = {
            **self._schema,
            "data": data.digest,
            "model": start.digest if start else self._model_identity(model),
            "precision": cell.training.precision,
        }
        document = {
            "model": model.model_dump(),
            "parent": self._inside(start) if start else None,
            "data": self._data_file(data),
            "precision": cell.training.precision,
        }
        return self._unit("reference", name, content_hash(content), document, "reference")

    def _data_file(self, data: Unit) -> str:
        return f"{self._inside(data)}/{'pairs.jsonl' if data.kind == 'pairs' else 'train.jsonl'}"

    def _cell(self, cell: Cell) -> Unit:
        train = self._training_content(cell)
        digest = content_hash(train)
        tests = {name: self.test(cell.model, cell.task, name) for name in self.test_names(cell.task)}
        generation = cell.generation.model_dump()
        decoding = Decoding.from_mapping(generation).canonical() | {"backend": cell.generation.backend}
        metrics = self.metrics(cell.task)
        task = self.manifest.tasks[cell.task]
        generate_hash = content_hash({"train": digest, "generation": decoding, "tests": {n: t.digest for n, t in tests.items()}})
        version = importlib.metadata.version("sacrebleu")
        score_hash = content_hash({"generate": generate_hash, "metrics": metrics, "sacrebleu": version})
        document = {
            "model_name": cell.model,
            "task_name": cell.task,
            "method_name": cell.method,
            "seed": cell.seed,
            "axes": dict(cell.axes),
            "task": {"type": task.type, "source_lang": task.source_lang, "target_lang": task.target_lang},
            "model": self.manifest.models[cell.model].model_dump(),
            "train": self._train_document(cell),
            "corpus": self._inside(self.corpus(cell.model, cell.task)),
            "parent": self._inside(self.cell(cell.parent)) if cell.parent else None,
            "pairs": self._inside(self.pairs(cell.pairs_from)) if cell.pairs_from else None,
            "reference": self._inside(self.reference(cell)) if cell.needs_reference else None,
            "generation": generation,
            "tests": {name: self._test_document(test, name, digest, decoding) for name, test in tests.items()},
            "metrics": metrics,
            "pairs_scorer": task.pairs.scorer if task.pairs and cell.pairs_from else None,
            "hashes": {"train": digest, "generate": generate_hash, "score": score_hash},
        }
        return self._unit("cells", cell.name, digest, document, "cell")

    def _test_document(self, test: Unit, name: str, train_digest: str, decoding: dict[str, Any]) -> dict[str, str]:
        digest = content_hash({"train": train_digest, "generation": decoding, "test": test.digest})
        return {"data": self._inside(test), "hash": digest, "folder": f"generate/{folder_name(name, digest)}"}

    def _training_content(self, cell: Cell) -> dict[str, Any]:
        """All that changes the weights of a cell."""
        model = self._model_identity(self.manifest.models[cell.model])
        content: dict[str, Any] = {**self._schema, "model": model, "method": cell.train}
        if cell.train is None:
            scratch = self.manifest.models[cell.model].from_scratch is not None
            corpus = self.corpus(cell.model, cell.task)  # its tokenizer decides the vocabulary
            return content | ({"seed": cell.seed, "corpus": corpus.digest} if scratch else {})
        ignored = _NOT_IDENTITY - ({"per_device_batch_size"} if METHODS[cell.train].batch_coupled else set())
        return content | {
            "params": dict(cell.params),
            "training": {k: v for k, v in cell.training.model_dump().items() if k not in ignored},
            "seed": cell.seed,
            "data": self._train_data(cell).digest,
            "parent": self.cell(cell.parent).digest if cell.parent else None,
        }

    def _train_document(self, cell: Cell) -> dict[str, Any] | None:
        if cell.train is None:
            return None
        data = self._train_data(cell)
        rows = self._data_file(data) if METHODS[cell.train].paired else f"{self._inside(data)}/sft.jsonl"
        return {"method": cell.train, "params": dict(cell.params), "training": cell.training.model_dump(), "data": rows}


def _split_sources(task: Task) -> dict[str, Source | dict[str, Any]]:
    if task.data is not None:
        return {split: _generated(task, split) for split in ("sft", "train", "dev")}
    found = {"sft": task.sft or task.train, "train": task.train, "dev": task.dev}
    return {split: source for split, source in found.items() if source is not None}


def _generated(task: Task, split: str) -> dict[str, Any]:
    assert task.data is not None
    return {"generator": task.data.generator, "seed": task.data.seed, "split": split, "size": getattr(task.data, split)}


def _source_document(source: Source | dict[str, Any]) -> dict[str, Any]:
    if isinstance(source, dict):
        return source
    return source.model_dump() | {"dataset": expand(source.dataset)}


def _tokenizer_identity(model: dict[str, Any]) -> dict[str, Any]:
    scratch = model.get("from_scratch")
    keys = ("id", "digest", "revision")
    return {"trained": scratch["tokenizer"]} if scratch else {key: model.get(key) for key in keys}
