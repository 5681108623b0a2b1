"""What each folder of an experiment is: the JSON document that stands in it, the hash that names it.

A hash holds what changes the folder's content and nothing else: no names, no paths, no resources.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.check_metrics import language_of
from experiments.grid import Cell, method_named
from experiments.identity import SCHEMA, SHORT, content_hash, folder_name, folders_by_hash
from experiments.schema import Manifest
from experiments.unit_evaluation import (
    decoding_content,
    generation_document,
    outputs_document,
    score_content,
    scoring_choices,
    task_metrics,
    used_definitions,
)
from experiments.unit_identity import (
    Contents,
    generated_split,
    model_document,
    rendering,
    tokenizer_identity,
    training_identity,
)


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
    """The folders of one manifest below ``root`` (``runs/<name>``); reads local data, writes nothing."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.manifest, self.root = manifest, root
        self._contents = Contents()
        self._units: dict[tuple[str, ...], Unit] = {}
        self._folders: dict[str, dict[str, Path]] = {}
        # thousands of cells have the same models; nobody changes what these return
        self._model = functools.cache(lambda name: self._contents.model(manifest.models[name]))
        self._model_document = functools.cache(lambda name: model_document(manifest.models[name]))

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
        data, start = self._train_data(cell), self.cell(cell.parent) if cell.parent else None
        name = f"{cell.parent.name if cell.parent else cell.model}--{data.folder.name}"
        name += "".join(f".{kind}" for kind in cell.reference_kinds[1:])
        key = ("reference", name, cell.training.precision, *cell.reference_kinds, _form(cell))
        return self._once(key, lambda: self._reference(cell, data, start, name))

    def cell(self, cell: Cell) -> Unit:
        """A cell: training, generations, scores."""
        return self._once(("cells", cell.name), lambda: self._cell(cell))

    def test_names(self, cell: Cell) -> list[str]:
        """Names of the test sets that a cell is measured on: its task's, or those that have outputs."""
        names = self.manifest.test_names(cell.task)
        return [name for name in names if name in cell.outputs] if cell.outputs else names

    def _once(self, key: tuple[str, ...], make: Callable[[], Unit]) -> Unit:
        if key not in self._units:
            self._units[key] = make()
        return self._units[key]

    def _unit(self, section: str, name: str, digest: str, document: Mapping[str, Any], kind: str) -> Unit:
        if section not in self._folders:
            self._folders[section] = folders_by_hash(self.root / section)
        # what has one hash has one folder, also before it is made
        folder = self._folders[section].setdefault(
            digest[:SHORT], self.root / section / folder_name(name, digest)
        )
        found = {"schema": SCHEMA, "kind": kind, "name": name, "hash": digest, **document}
        return Unit(kind, folder, digest, found)

    def _inside(self, unit: Unit) -> str:
        return f"{unit.folder.parent.name}/{unit.folder.name}"  # a section and a folder, as _unit made it

    # -- documents

    def _corpus(self, model_name: str, task_name: str) -> Unit:
        model, task = self.manifest.models[model_name], self.manifest.tasks[task_name]
        rendered = rendering(model, task)
        sources = {"sft": task.sft or task.train, "train": task.train}
        if task.data is not None:
            splits = {split: self._contents.generated(generated_split(task.data, split)) for split in sources}
        else:
            splits = {split: self._contents.source(source) for split, source in sources.items() if source}
        content = {
            "schema": SCHEMA,
            "rendering": rendered,
            "tokenizer": tokenizer_identity(self._model(model_name)),
            "splits": {split: source.identity for split, source in splits.items()},
        }
        document = {
            "model": self._model_document(model_name),
            "rendering": rendered,
            "splits": {split: source.document for split, source in splits.items()},
        }
        return self._unit("data", f"{model_name}.{task_name}", content_hash(content), document, "corpus")

    def _test(self, model_name: str, task_name: str, name: str) -> Unit:
        corpus, task = self.corpus(model_name, task_name), self.manifest.tasks[task_name]
        if task.data is not None:
            source = self._contents.generated(generated_split(task.data, name))
        else:
            declared = task.dev if name == "dev" else task.tests[name]
            assert declared is not None  # test_names has "dev" only where there is one
            source = self._contents.source(declared)
        digest = content_hash({"schema": SCHEMA, "corpus": corpus.digest, "source": source.identity})
        document = {"corpus": self._inside(corpus), "test": name, "source": source.document}
        return self._unit("data", f"{model_name}.{task_name}.{name}", digest, document, "test")

    def _pairs(self, parent: Cell) -> Unit:
        task = self.manifest.tasks[parent.task]
        assert task.pairs is not None
        # the batch size stays in: a batch is drawn from one random stream
        recipe = task.pairs.model_dump(exclude={"from_"} | ({"ranked"} if not task.pairs.ranked else set()))
        recipe["max_new_tokens"] = task.max_completion_length
        above, corpus = self.cell(parent), self.corpus(parent.model, parent.task)
        content = {"schema": SCHEMA, "parent": above.digest, "corpus": corpus.digest, "recipe": recipe}
        defined = used_definitions(self.manifest, [task.pairs.scorer])
        document = {
            "parent": self._inside(above),
            "corpus": self._inside(corpus),
            "recipe": recipe,
            "target_lang": language_of(task.type, task.source_lang, task.target_lang),
        }
        return self._unit("pairs", parent.name, content_hash(content | defined), document | defined, "pairs")

    def _train_data(self, cell: Cell) -> Unit:
        """Where a cell's training rows are: sampled pairs, or the prepared data of its task."""
        return self.pairs(cell.pairs_from) if cell.pairs_from else self.corpus(cell.model, cell.task)

    def _reference(self, cell: Cell, data: Unit, start: Unit | None, name: str) -> Unit:
        content = {
            "schema": SCHEMA,
            "data": data.digest,
            "model": start.digest if start else self._model(cell.model),
            "precision": cell.training.precision,
        }
        asked = {"kinds": list(cell.reference_kinds), "form": _form(cell)}
        if asked != {"kinds": ["logps"], "form": "unpaired"}:
            content |= asked
        document = asked | {
            "model": self._model_document(cell.model),
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
        tests = {name: self.test(cell.model, cell.task, name) for name in self.test_names(cell)}
        decoding = decoding_content(cell)
        task = self.manifest.tasks[cell.task]
        generate_hash = content_hash(
            {
                "train": digest,
                "generation": decoding,
                "tests": {name: test.digest for name, test in tests.items()},
            }
        )
        score_hash = content_hash(score_content(self.manifest, cell.task, generate_hash, self._contents))
        document = {
            "model_name": cell.model,
            "task_name": cell.task,
            "method_name": cell.method,
            "seed": None if cell.outputs else cell.seed,
            "axes": dict(cell.axes),
            "task": {"type": task.type, "source_lang": task.source_lang, "target_lang": task.target_lang},
            "model": self._model_document(cell.model),
            "train": self._train_document(cell),
            "corpus": self._inside(self.corpus(cell.model, cell.task)),
            "parent": self._inside(self.cell(cell.parent)) if cell.parent else None,
            "pairs": self._inside(self.pairs(cell.pairs_from)) if cell.pairs_from else None,
            "reference": self._inside(self.reference(cell)) if cell.needs_reference else None,
            "generation": generation_document(cell),
            "tests": {
                name: self._test_document(test, name, digest, decoding) for name, test in tests.items()
            },
            "metrics": task_metrics(self.manifest, cell.task),
            "pairs_scorer": task.pairs.scorer if task.pairs and cell.pairs_from else None,
            "hashes": {"train": digest, "generate": generate_hash, "score": score_hash},
            **scoring_choices(self.manifest, cell.task),
            **({"outputs": self._outputs(cell)} if cell.outputs else {}),
        }
        return self._unit("cells", cell.name, digest, document, "cell")

    def _test_document(
        self, test: Unit, name: str, train_digest: str, decoding: dict[str, Any]
    ) -> dict[str, str]:
        digest = content_hash({"train": train_digest, "generation": decoding, "test": test.digest})
        return {"data": self._inside(test), "hash": digest, "folder": f"generate/{folder_name(name, digest)}"}

    def _outputs(self, cell: Cell) -> dict[str, Mapping[str, str]]:
        return outputs_document(cell, self.test_names(cell), self._contents)

    def _training_content(self, cell: Cell) -> dict[str, Any]:
        """All that changes the weights of a cell; of outputs that others made, the files."""
        content: dict[str, Any] = {"schema": SCHEMA, "model": self._model(cell.model), "method": cell.train}
        if cell.outputs:
            return content | {"outputs": {name: file["sha256"] for name, file in self._outputs(cell).items()}}
        if cell.train is None:
            scratch = self.manifest.models[cell.model].from_scratch is not None
            corpus = self.corpus(cell.model, cell.task)  # its tokenizer decides the vocabulary
            return content | ({"seed": cell.seed, "corpus": corpus.digest} if scratch else {})
        return content | {
            "params": dict(cell.params),
            "training": training_identity(cell.training, method_named(cell.train)),
            "seed": cell.seed,
            "data": self._train_data(cell).digest,
            "parent": self.cell(cell.parent).digest if cell.parent else None,
        }

    def _train_document(self, cell: Cell) -> dict[str, Any] | None:
        if cell.train is None:
            return None
        data = self._train_data(cell)
        rows = f"{self._inside(data)}/sft.jsonl" if cell.data_form == "supervised" else self._data_file(data)
        return {
            "method": cell.train,
            "params": dict(cell.params),
            "training": cell.training.model_dump(),
            "data": rows,
            "batch_coupled": method_named(cell.train).batch_coupled,
        }


def _form(cell: Cell) -> str:
    """Which completions of a row a cell's reference values are of; pairs count as two single ones."""
    return "ranked" if cell.data_form == "ranked" else "unpaired"
