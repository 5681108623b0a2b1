"""The words of a manifest, as pydantic models: types, ranges, defaults. What needs two entries at once is in ``checks.py``."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
Condition = Any  # a value, a list of values, or a mapping of lt, le, gt, ge


class Entry(BaseModel):
    """Base of all entries: unknown keys are faults, numbers are not read out of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tokenizer(Entry):
    """A tokenizer trained on the task's own text."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: Annotated[int, Field(ge=270, description="256 bytes and the special tokens come first")] = 2000


class FromScratch(Entry):
    """A model made from a configuration, with random weights."""

    architecture: Literal["llama"] = "llama"
    hidden_size: Count
    layers: Count
    heads: Count
    kv_heads: Count | None = None
    intermediate_size: Count | None = None
    max_positions: Count = 512
    tie_embeddings: bool = True
    tokenizer: Tokenizer = Tokenizer()

    @model_validator(mode="after")
    def _heads_divide(self) -> "FromScratch":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by heads {self.heads}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        return self


class Model(Entry):
    """Where the weights come from: a hub id or a folder (``id``), or a configuration (``from_scratch``)."""

    id: str | None = None
    revision: str | None = None
    from_scratch: FromScratch | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    chat_template: str | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if (self.id is None) == (self.from_scratch is None):
            raise ValueError("give either id (a hub id or a folder) or from_scratch")
        return self


class Source(Entry):
    """A split of a data set: a local JSONL, CSV or Parquet file, or the id of a data set on a hub."""

    dataset: str
    revision: str | None = None
    split: str | None = None
    columns: dict[str, str] = {}
    limit: Count | None = None

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"id", "source", "reference", "references", "prompt", "chosen", "rejected", "chosen_score", "rejected_score"}
        unknown = sorted(set(columns) - known)
        if unknown:
            raise ValueError(f"columns maps our names to the file's; {unknown} is none of ours. Known: {', '.join(sorted(known))}.")
        return columns


class Generated(Entry):
    """Data that the project generates; the sizes count rows."""

    generator: str
    seed: int = 0
    sft: Count
    train: Count
    dev: Count
    test: Count


class Pairs(Entry):
    """Preference pairs made on policy: sample, score, choose."""

    from_: Annotated[str, Field(alias="from")] = "sft"
    samples: Annotated[int, Field(ge=2)] = 8
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    scorer: str = "chrf"
    choose: Literal["best-worst", "best-random", "reference-worst"] = "best-worst"
    min_gap: Annotated[float, Field(ge=0)] = 0.0
    max_gap: Positive | None = None
    include_reference: bool = False
    limit: Count | None = None
    batch_size: Count = 64
    seed: int = 0


class Generation(Entry):
    """Decoding of the test sets; every value is passed on, none is left to a model's own file."""

    backend: str = "transformers"
    do_sample: bool = False
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    num_beams: Count = 1
    max_new_tokens: Count = 256
    batch_size: Count = 64
    n: Count = 1
    seed: int = 0


class Task(Entry):
    """A task: its kind, its data, how a prompt is written, how outputs are made and measured."""

    type: Literal["translation", "summarization"]
    source_lang: str = "en"
    target_lang: str | None = None
    data: Generated | None = None
    sft: Source | None = None
    train: Source | None = None
    dev: Source | None = None
    tests: dict[Name, Source] = {}
    prompt: str | None = None
    max_prompt_length: Count = 256
    max_completion_length: Count = 256
    pairs: Pairs | None = None
    generation: Generation = Generation()
    metrics: list[str] | None = None

    @model_validator(mode="after")
    def _has_data(self) -> "Task":
        if self.type == "translation" and self.target_lang is None:
            raise ValueError("a translation task needs target_lang (such as 'de'): it decides the tokenizer of BLEU")
        if self.data is not None and (self.sft or self.train or self.dev or self.tests):
            raise ValueError("give either data (a generator) or sft/train/dev/tests, not both")
        if self.data is None and (self.train is None or not self.tests):
            raise ValueError("give data (a generator), or train and tests (files or data set ids)")
        return self


class Method(Entry):
    """A row of the comparison: a method of po.methods with its grid of hyperparameters."""

    method: str | None = None
    train: bool = True
    from_: Annotated[str | None, Field(alias="from")] = None
    params: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    zipped: Annotated[dict[str, list[Any]], Field(alias="zip")] = {}
    points: Annotated[list[dict[str, Any]], Field(alias="list")] = []


class Training(Entry):
    """How every method is trained; a method's ``params`` may name any of these too."""

    epochs: Positive = 1.0
    max_steps: Count | None = None
    global_batch_size: Count = 32
    per_device_batch_size: Count = 8
    learning_rate: Positive = 1e-5
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: Positive = 1e-8
    precision: Literal["fp32", "bf16"] = "fp32"
    disable_dropout: bool = True
    gradient_checkpointing: bool = False
    logging_steps: Count = 10
    save_steps: Count = 200
    retain: Literal["final", "all"] = "final"


class Limits(Entry):
    """What a stage gets while it runs."""

    cpus: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0


class LimitRule(Entry):
    """Other limits for the stages that match."""

    when: dict[str, Condition]
    values: Annotated[dict[Literal["cpus", "gpus"], int], Field(alias="set")]


class Resources(Entry):
    """Default limits, and rules for exceptions; the last rule that matches wins."""

    default: Limits = Limits()
    rules: list[LimitRule] = []


class Override(Entry):
    """Other settings for the cells that match, by dotted name: ``training.max_steps``, ``params.beta``, ``generation.batch_size``."""

    when: dict[str, Condition]
    values: Annotated[dict[str, Any], Field(alias="set")]


class Exclusion(Entry):
    """Cells that are left out, and why."""

    when: dict[str, Condition]
    reason: str


class Selection(Entry):
    """How the best point of a method's grid is chosen: by this metric on this split, never on the test set."""

    metric: str
    split: Literal["dev"] = "dev"


class Report(Entry):
    """What the report compares with."""

    baseline: str = "sft"
    select: Selection | None = None


class Manifest(Entry):
    """A whole study."""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    from_seed: Literal["same", "first"] = "same"
    training: Training = Training()
    resources: Resources = Resources()
    overrides: list[Override] = []
    exclude: list[Exclusion] = []
    report: Report = Report()

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{seeds} names a seed twice")
        return seeds
