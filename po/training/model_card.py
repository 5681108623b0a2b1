"""The README.md of a trained model: method, data, settings and what to cite, as they were used."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from po.methods.hyperparameters import shown
from po.methods.method import Method
from po.rows import Row, rows_digest
from po.training.citations import citations, cited

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "peft")
_TAG = "preference-optimization"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SYMBOLS = (
    "a and b are the log-probabilities of the chosen and of the rejected completion relative to the "
    "reference, Δ = a - b, and R is the same difference without a reference; m are averaged "
    "log-probabilities, n token counts, s scores of the data; w and l stand for chosen and rejected; NLL is "
    "the negative log-likelihood of the chosen completion, σ the logistic function."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """One data set of a training.

    Attributes:
        use: what it was for, as in ``training``.
        name: its id on the hub, or another name; empty where it has none.
        rows: number of rows.
        sha256: digest of the token ids of the rows in order (``po.rows.rows_digest``).
    """

    use: str
    name: str
    rows: int
    sha256: str

    @classmethod
    def of(cls, use: str, name: str, rows: Sequence[Row]) -> "DataFacts":
        """The facts of rows of token ids."""
        return cls(use=use, name=name, rows=len(rows), sha256=rows_digest(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card tells.

    Attributes:
        name: of the model.
        start: what training started from: an id of the hub, a path, or a description.
        method: entry of the table, or one put together.
        params: every hyperparameter and option, as ``method.check_params`` returns them.
        reference: what the reference was, in a few words; empty for a method without one.
        data: the data sets.
        training: settings by name, the seed among them.
        metrics: of the last evaluation, by name.
        versions: of packages.
        adapter: the model is an adapter, to be loaded with peft.
        header: more fields of the card's header (language, license, tags).
    """

    name: str
    start: str
    method: Method
    params: Mapping[str, Any]
    reference: str = ""
    data: Sequence[DataFacts] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    adapter: bool = False
    header: Mapping[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Installed versions of the packages that a training depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_model_card(folder: Path, facts: CardFacts) -> Path:
    """Writes ``README.md`` into the folder of a saved model, in place of any that is there.

    Args:
        folder: of the model.
        facts: what it tells.

    Returns:
        The file.
    """
    path = folder / "README.md"
    path.write_text(model_card(facts), encoding="utf-8")
    return path


def model_card(facts: CardFacts) -> str:
    """The card's text: a header in YAML for the hub, and Markdown.

    Args:
        facts: what it tells.
    """
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True)
    bibtex = citations(facts.method)
    parts = [
        f"# {facts.name}",
        f"{_place(facts.start)}, trained with the method `{facts.method.name}`.",
        *_method(facts),
        "## Data",
        "\n".join(_data(one) for one in facts.data),
        "## Training",
        _table("setting", facts.training),
        *(("## Evaluation", _table("metric", facts.metrics)) if facts.metrics else ()),
        "## Versions",
        _table("package", facts.versions),
        *(("## Citation", *(f"```bibtex\n{entry}\n```" for entry in bibtex)) if bibtex else ()),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: CardFacts) -> dict[str, Any]:
    more = dict(facts.header)
    tags = more.pop("tags", None) or []
    listed = [tags] if isinstance(tags, str) else list(tags)
    header: dict[str, Any] = {"library_name": "peft" if facts.adapter else "transformers"}
    if _is_hub_id(facts.start):
        header["base_model"] = facts.start
    named = sorted({one.name for one in facts.data if _is_hub_id(one.name)})
    if named:
        header["datasets"] = named
    names = [re.sub(r"\W+", "-", part.name).strip("-") for part in cited(facts.method)]
    header["tags"] = list(dict.fromkeys([_TAG, *names, *(["lora"] if facts.adapter else []), *listed]))
    return header | {name: value for name, value in more.items() if value is not None}


def _method(facts: CardFacts) -> list[str]:
    method = facts.method
    parts = ["## Method", f"`{method.name}`: {method.paper}.", f"Loss: `{method.formula}`", _SYMBOLS]
    for part in cited(method)[1:]:
        parts.append(f"`{part.name}`: `{part.formula}` ({part.paper}).")
    if facts.reference:
        parts.append(f"Reference: {facts.reference}.")
    return [*parts, _table("hyperparameter", facts.params)]


def _data(one: DataFacts) -> str:
    name = f"`{one.name}`, " if one.name else ""
    return f"- {one.use}: {name}{one.rows} rows, SHA-256 of their token ids `{one.sha256}`"


def _table(what: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = "".join(f"\n| `{name}` | {shown(value)} |" for name, value in values.items())
    return f"| {what} | value |\n| --- | --- |{rows}"


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _place(start: str) -> str:
    """A start for the text: of a path on somebody's disk only the last name."""
    if _is_hub_id(start):
        return f"[{start}](https://huggingface.co/{start})"
    return f"`{Path(start).name}`" if start else "A new model"


def facts_of(trainer: Any, *, name: str, start: str, reference: str, data: Sequence[DataFacts]) -> CardFacts:
    """What a trainer knows of its training.

    Args:
        trainer: a ``po.training.trainer.MethodTrainer``, after training.
        name: of the model.
        start: what training started from.
        reference: what the reference was.
        data: the data sets.
    """
    args, state = trainer.args, trainer.state
    per_device, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    training = {
        "seed": args.seed,
        "steps": state.global_step,
        "epochs": round(state.epoch or 0.0, 4),
        "examples per step": per_device * accumulation * args.world_size,
        "examples per micro-batch": per_device,
        "processes": args.world_size,
        "learning rate": args.learning_rate,
        "schedule": _word(args.lr_scheduler_type),
        "warmup steps": args.get_warmup_steps(state.max_steps),
        "optimizer": _word(args.optim),
        "weight decay": args.weight_decay,
        "largest gradient norm": args.max_grad_norm,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "as the weights",
        "weights": str(trainer.model.dtype).removeprefix("torch."),
    }
    evaluated: Mapping[str, float] = next(
        (logs for logs in reversed(state.log_history) if "eval_loss" in logs), {}
    )
    kept = ("eval_loss", "eval_rewards/", "eval_logps")
    return CardFacts(
        name=name,
        start=start,
        method=trainer.method,
        params=trainer.params,
        reference=reference,
        data=data,
        training=training,
        metrics={key: value for key, value in evaluated.items() if key.startswith(kept)},
        versions=versions(),
        adapter=hasattr(trainer.model, "peft_config"),
    )


def _word(choice: Any) -> str:
    return str(getattr(choice, "value", choice))
