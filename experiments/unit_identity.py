"""What models, data and settings are by content: the parts that the hashes of folders are made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.generators import GENERATORS
from experiments.identity import file_digest
from experiments.locations import expand, is_local, template_source
from experiments.prompts import template_text
from experiments.schema import Model, Training
from experiments.schema_tasks import Generated, Source, Task
from po.methods import Method

# Settings of training that change how a cell is computed, not what comes out.
_NOT_IDENTITY = frozenset(
    {"per_device_batch_size", "logging_steps", "save_steps", "retain", "gradient_checkpointing", "speed"}
)
# Settings that came later than the first experiments, with the value that those had: it changes nothing.
_YOUNGER = {"router_aux_loss_coef": 0.001}
# What is done with rows that cannot be learned from as they are, and words of a model or a source: each
# enters a hash only where it differs from the default.
_CHOICES = ("truncation", "over_long", "equal_pairs", "duplicates", "empty")
_LATER_OF_MODEL = ("adapter", "quantization")
_LATER_OF_SOURCE = ("subset", "adapter", "pairing", "min_gap")


@dataclass(frozen=True)
class DataSource:
    """Where rows come from.

    Attributes:
        identity: what is hashed: no path, but the digest of the file.
        document: what ``prepare`` reads.
    """

    identity: dict[str, Any]
    document: dict[str, Any]


class Contents:
    """Models and data by content; every file is read once."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}

    def model(self, model: Model) -> dict[str, Any]:
        """A model's entry, with the digest of a folder in place of its path.

        The chat template is left out: it is part of the rendering.
        """
        words = model.model_dump().items()
        spec = {key: value for key, value in words if key not in _LATER_OF_MODEL or value is not None}
        spec["chat_template"] = None
        path = Path(expand(model.id)) if model.id else None
        if path is not None and path.is_dir():
            spec |= {"id": None, "digest": self.digest(path)}
        return spec

    def source(self, source: Source) -> DataSource:
        """A declared split: a file by its digest, a data set on a hub by its id and revision."""
        spec, dataset = _source_words(source), expand(source.dataset)
        if not is_local(dataset) and not Path(dataset).is_dir():
            return DataSource(spec, spec)
        digest = {"digest": self.digest(Path(dataset))}
        return DataSource(spec | {"dataset": None} | digest, spec | {"dataset": dataset} | digest)

    def generated(self, split: dict[str, Any]) -> DataSource:
        """A split that a generator makes."""
        spec = split | {"generator_version": GENERATORS[split["generator"]].version}
        return DataSource(spec, spec)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file or a folder."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]


def _source_words(source: Source) -> dict[str, Any]:
    """A source's entry; words that came later are left out where they say nothing, so old hashes stay."""
    return {
        key: value
        for key, value in source.model_dump().items()
        if key not in _LATER_OF_SOURCE or value != Source.model_fields[key].default
    }


def model_document(model: Model) -> dict[str, Any]:
    """A model's entry as the stages read it: with variables of the environment filled in."""
    return model.model_dump() | {"id": expand(model.id) if model.id else None}


def rendering(model: Model, task: Task) -> dict[str, Any]:
    """All that turns a row into a prompt and decides whether it is kept."""
    choices = {key: getattr(task, key) for key in _CHOICES}
    return {
        "type": task.type,
        "source_lang": task.source_lang,
        "target_lang": task.target_lang,
        "prompt": template_text(task.prompt, task.type),
        "chat_template": None if model.chat_template is None else template_source(model.chat_template),
        "max_prompt_length": task.max_prompt_length,
        "max_completion_length": task.max_completion_length,
        **{key: value for key, value in choices.items() if value != Task.model_fields[key].default},
    }


def generated_split(data: Generated, split: str) -> dict[str, Any]:
    """One split of generated data; a size is in rows."""
    return {"generator": data.generator, "seed": data.seed, "split": split, "size": getattr(data, split)}


def tokenizer_identity(model: dict[str, Any]) -> dict[str, Any]:
    """What decides a model's tokenizer.

    Args:
        model: the result of ``Contents.model``.
    """
    if model["from_scratch"]:
        return {"trained": model["from_scratch"]["tokenizer"]}
    return {key: model.get(key) for key in ("id", "digest", "revision")}


def training_identity(training: Training, method: Method) -> dict[str, Any]:
    """The settings that change the weights.

    How a batch is split over devices changes them only where a pair's loss depends on the pairs beside it.
    """
    ignored = _NOT_IDENTITY - ({"per_device_batch_size"} if method.batch_coupled else set())
    values = training.model_dump().items()
    return {k: v for k, v in values if k not in ignored and not (k in _YOUNGER and v == _YOUNGER[k])}
