"""The words of a manifest's tasks: data, pairs, decoding; and what all entries have in common."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from eval.metrics.languages import code_fault
from eval.scoring.postprocess import postprocessor_fault
from experiments.locations import revision_fault
from experiments.problems import nearest
from po.data.adapters import ADAPTERS
from po.data.settings import Choice, Empty, OverLong
from po.data.truncate import Truncation

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]


COLUMNS = (
    "id",
    "category",
    "doc",
    "source",
    "reference",
    "references",
    "prompt",
    "chosen",
    "rejected",
    "chosen_score",
    "rejected_score",
    "win_probability",
    "completion",
    "label",
    "completions",
    "scores",
    "messages",
    "source_lang",
    "target_lang",
)
# Columns that are one form's only, and what they need beside them.
_NEEDS = {"label": "completion", "scores": "completions", "chosen": "rejected", "rejected": "chosen"}


def _checked_revision(revision: str) -> str:
    if fault := revision_fault(revision):
        raise ValueError(fault)
    return revision


Revision = Annotated[str, AfterValidator(_checked_revision)]


class Entry(BaseModel):
    """Base of all entries: unknown keys are faults, numbers are not read out of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(Entry):
    """A split of a data set: a local JSONL, CSV or Parquet file, a saved folder, or an id on a hub.

    ``subset`` is the configuration of a hub's data set; ``adapter`` a function of ``po.data.adapters``, in
    place of ``columns``; ``pairing`` makes pairs of rankings, at least ``min_gap`` apart in score.
    """

    dataset: str
    revision: Revision | None = None
    split: str | None = None
    columns: dict[str, str] = {}
    limit: Count | None = None
    subset: str | None = None
    adapter: str | None = None
    pairing: Literal["best-worst", "adjacent", "all"] | None = None
    min_gap: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in COLUMNS:
                raise ValueError(
                    f"'{name}' is none of our names, which stand on the left; {nearest(name, COLUMNS)}"
                )
        if ("chosen" in columns) != ("rejected" in columns):
            raise ValueError("a pair has two sides; name the columns of both chosen and rejected")
        for name, other in _NEEDS.items():
            if name in columns and other not in columns:
                raise ValueError(f"{name} belongs to {other}; name the column of {other} too")
        if (
            len(
                found := [
                    form for form in ("chosen", "completion", "completions", "messages") if form in columns
                ]
            )
            > 1
        ):
            raise ValueError(f"{' and '.join(found)} are different forms of rows; keep the columns of one")
        return columns

    @field_validator("adapter")
    @classmethod
    def _known_adapter(cls, adapter: str | None) -> str | None:
        if adapter is not None and adapter not in ADAPTERS:
            raise ValueError(f"'{adapter}' is no adapter; {nearest(adapter, ADAPTERS)}")
        return adapter

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        if self.adapter and self.columns:
            raise ValueError(f"the adapter {self.adapter} knows the columns; leave 'columns' out")
        ranked = ADAPTERS[self.adapter].form == "ranked" if self.adapter else "completions" in self.columns
        if self.pairing and not ranked:
            raise ValueError("pairing makes pairs of rankings; name the columns completions and scores")
        if self.min_gap and not self.pairing:
            raise ValueError("min_gap is the smallest gap of a pair made by 'pairing'; give pairing")
        if self.min_gap and "completions" in self.columns and "scores" not in self.columns:
            raise ValueError("min_gap compares scores; name their column: columns: {scores: ...}")
        return self


class Generated(Entry):
    """Data that the project generates; the sizes count rows."""

    generator: str
    seed: Seed = 0
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
    ranked: bool = False
    limit: Count | None = None
    batch_size: Count = 64
    seed: Seed = 0


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
    seed: Seed = 0


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
    truncation: Truncation = "keep_end"
    over_long: OverLong = "drop"
    equal_pairs: Choice = "drop"
    duplicates: Choice = "keep"
    empty: Empty = "error"
    pairs: Pairs | None = None
    generation: Generation = Generation()
    metrics: Annotated[list[str], Field(min_length=1)] | None = None
    postprocess: list[str] = []

    @field_validator("metrics")
    @classmethod
    def _different_metrics(cls, metrics: list[str] | None) -> list[str] | None:
        if metrics and len(set(metrics)) != len(metrics):
            raise ValueError(f"{metrics} names a metric twice")
        return metrics

    @field_validator("source_lang", "target_lang")
    @classmethod
    def _language_codes(cls, code: str | None) -> str | None:
        if code is not None and (fault := code_fault(code)):
            raise fault
        return code

    @field_validator("postprocess")
    @classmethod
    def _known_postprocessing(cls, names: list[str]) -> list[str]:
        for name in names:
            if fault := postprocessor_fault(name):
                raise fault
        if len(set(names)) != len(names):
            raise ValueError(f"{names} names a function twice")
        return names

    @field_validator("tests")
    @classmethod
    def _not_the_dev_split(cls, tests: dict[str, Source]) -> dict[str, Source]:
        if "dev" in tests:
            raise ValueError(
                "'dev' is the split that hyperparameters are chosen on; give it as dev:, beside tests"
            )
        return tests

    @model_validator(mode="after")
    def _truncation_is_used(self) -> "Task":
        if self.truncation != "keep_end" and self.over_long != "truncate":
            raise ValueError(
                f"truncation: {self.truncation} needs over_long: truncate; long rows are left out otherwise"
            )
        return self

    @model_validator(mode="after")
    def _has_data(self) -> "Task":
        if self.type == "translation" and self.target_lang is None:
            raise ValueError(
                "a translation task needs target_lang (such as 'de'): it decides the tokenizer of BLEU"
            )
        if self.data is not None and (self.sft or self.train or self.dev or self.tests):
            raise ValueError("give either data (a generator) or sft/train/dev/tests, not both")
        if self.data is None and (self.train is None or not self.tests):
            raise ValueError("give data (a generator), or train and tests (files or data set ids)")
        return self
