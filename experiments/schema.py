"""The words of a manifest, as pydantic models: types, ranges, defaults.

Tasks are in ``schema_tasks.py``, machines in ``schema_resources.py``, speed in ``schema_speed.py``;
``checks.py`` holds entries against each other.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from experiments.schema_resources import Condition, Resources, Slurm
from experiments.schema_speed import MicroBatch, Speed
from experiments.schema_tasks import Count, Entry, Name, Positive, Revision, Seed, Task
from po.models.adapter_settings import AdapterSettings


class Tokenizer(Entry):
    """A tokenizer trained on the task's own text."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: Annotated[int, Field(ge=270, description="256 bytes and the special tokens come first")] = (
        2000
    )


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


class Adapter(Entry):
    """Adapters (LoRA) that are trained in place of a model's weights; see ``po.models.adapter_settings``.

    ``reference`` is ``off`` unless given; ``copy`` where the weights are quantized, which would be rounded
    again if every cell started from the merged weights of the one above.
    """

    r: Count = AdapterSettings.r
    alpha: Positive = AdapterSettings.alpha
    dropout: Annotated[float, Field(ge=0, lt=1)] = AdapterSettings.dropout
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] = []
    rslora: bool = AdapterSettings.rslora
    dora: bool = AdapterSettings.dora
    init: Literal["kaiming", "gaussian"] = "kaiming"
    reference: Literal["off", "copy", "merged"] = "off"

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_modules(cls, targets: Any) -> Any:
        if targets == "all-linear" or (targets and isinstance(targets, list)):
            return targets
        raise ValueError("write all-linear, or a list of modules' names such as [q_proj, v_proj]")


class Model(Entry):
    """Where the weights come from: a hub id or a folder (``id``), or a configuration (``from_scratch``).

    With ``adapter`` they stay as they are and adapters are trained; ``quantization`` keeps them in 4 or 8
    bits during training.
    """

    id: str | None = None
    revision: Revision | None = None
    from_scratch: FromScratch | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    chat_template: str | None = None
    trust_remote_code: bool = False
    adapter: Adapter | None = None
    quantization: Literal["4bit", "8bit"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _reference_of_quantized(cls, given: Any) -> Any:
        """Spells the default out, so that it stands in ``cell.json``."""
        adapter = given.get("adapter") if isinstance(given, Mapping) else None
        if isinstance(adapter, Mapping) and given.get("quantization"):
            return {**given, "adapter": {"reference": "copy", **adapter}}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if (self.id is None) == (self.from_scratch is None):
            raise ValueError("give either id (a hub id or a folder) or from_scratch")
        if self.from_scratch and (self.adapter or self.quantization):
            raise ValueError("random weights must be trained themselves; leave adapter and quantization out")
        if self.quantization == "8bit" and self.adapter and self.adapter.dora:
            raise ValueError(
                "dora does not go with weights in 8 bits; take 4bit, or leave one of the two out"
            )
        if self.quantization and self.adapter is None:
            raise ValueError("quantized weights cannot be trained; give the model an adapter: {r: 16}, say")
        return self


class Method(Entry):
    """A row of the comparison: a method of po.methods with its grid of hyperparameters.

    Or outputs that others made: ``outputs`` names a file for each test set, and nothing is trained.
    """

    method: str | None = None
    train: bool = True
    from_: Annotated[str | None, Field(alias="from")] = None
    params: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    zipped: Annotated[dict[str, list[Any]], Field(alias="zip")] = {}
    points: Annotated[list[dict[str, Any]], Field(alias="list")] = []
    outputs: Annotated[dict[Name, str], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _outputs_are_made_already(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("outputs") is not None and "train" not in given:
            return {**given, "train": False}
        return given

    @model_validator(mode="after")
    def _untrained_has_nothing_to_train(self) -> "Method":
        given: dict[str, Any] = {
            "method": self.method,
            "from": self.from_,
            "params": self.params,
            "grid": self.grid,
        }
        given |= {"zip": self.zipped, "list": self.points}
        useless = [key for key, value in given.items() if value]
        if self.outputs is not None and self.train:
            raise ValueError("outputs of others are measured, and nothing is trained; leave train out")
        if not self.train and useless:
            what = "train: false measures the model as it is" if self.outputs is None else "outputs are texts"
            raise ValueError(f"{what}; {', '.join(useless)} would have no effect")
        return self


class Training(Entry):
    """How every method is trained; a method's ``params`` may name any of these too."""

    epochs: Positive = 1.0
    max_steps: Count | None = None
    global_batch_size: Count = 32
    per_device_batch_size: MicroBatch = 8
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
    router_aux_loss_coef: Annotated[float, Field(ge=0)] = 0.001
    speed: Speed = Speed()


class Override(Entry):
    """Other settings for the cells that match, by dotted name: ``training.max_steps``, ``params.beta``."""

    when: dict[str, Condition]
    values: Annotated[dict[str, Any], Field(alias="set")]


class Exclusion(Entry):
    """Cells that are left out, and why."""

    when: dict[str, Condition]
    reason: str


class Selection(Entry):
    """How the best point of a method's grid is chosen: by a metric on the dev split, never on a test set."""

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
    metrics: dict[Name, dict[str, Any]] = {}
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    from_seed: Literal["same", "first"] = "same"
    training: Training = Training()
    resources: Resources = Resources()
    slurm: Slurm = Slurm()
    overrides: list[Override] = []
    exclude: list[Exclusion] = []
    report: Report = Report()

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{seeds} names a seed twice")
        return seeds

    def test_names(self, task: str) -> list[str]:
        """Names of the test sets of a task; ``dev`` is one of them where the report selects on it."""
        entry = self.tasks[task]
        names = ["test"] if entry.data else list(entry.tests)
        return names + (["dev"] if self.report.select and (entry.data or entry.dev) else [])
