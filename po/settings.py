"""cell.json -> what training needs to know, checked and frozen."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from po.faults import InputFault
from po.methods import Method, resolve
from po.methods.hyperparameters import MethodError

_REMEDY = "run experiments.run again, it writes the file anew"

Sharing = Literal["auto", "off"]
Head = Literal["fused", "recompute"]


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How steps are computed; a result changes by the order of fp32 sums only.

    Attributes:
        sharing: ``auto`` for packed rows with each prompt computed once where the architecture allows it,
            ``off`` for padded rows.
        head: ``fused`` for gradients of the head in one pass where that can be, ``recompute`` for two.
        token_budget: tokens of one forward and backward pass, see ``po.training.pieces``; None chooses by the
            device.
        compile: torch.compile.
        liger: kernels of the package liger-kernel, on CUDA.
    """

    sharing: Sharing = "auto"
    head: Head = "fused"
    token_budget: int | None = None
    compile: bool = False
    liger: bool = False

    def __post_init__(self) -> None:
        """Refuses values that mean nothing.

        Raises:
            InputFault: says which, and what may stand there.
        """
        budget = self.token_budget
        whole = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
        faults = {
            "sharing": self.sharing not in get_args(Sharing) and " or ".join(get_args(Sharing)),
            "head": self.head not in get_args(Head) and " or ".join(get_args(Head)),
            "token_budget": not (budget is None or whole) and "a whole number of at least 1, or null",
            "compile": not isinstance(self.compile, bool) and "true or false",
            "liger": not isinstance(self.liger, bool) and "true or false",
        }
        for name, expected in faults.items():
            if expected:
                raise InputFault(f"speed.{name} is {getattr(self, name)!r}; write {expected}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the optimizer and its schedule.

    Units: steps are optimizer steps, batch sizes count pairs (sft: rows). ``per_device_batch_size`` may be
    ``auto``: what a process has of a step is one micro-batch.
    """

    epochs: float
    max_steps: int | None
    global_batch_size: int
    per_device_batch_size: int | Literal["auto"]
    learning_rate: float
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    precision: str
    disable_dropout: bool
    gradient_checkpointing: bool
    logging_steps: int
    save_steps: int
    retain: str
    router_aux_loss_coef: float
    speed: SpeedSettings


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a cell is trained: the method with its hyperparameters, the optimizer, the rows."""

    method: Method
    params: Mapping[str, Any]
    training: TrainingSettings
    data: Path


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One cell, as its training sees it.

    Attributes:
        folder: the cell's folder.
        stage_hash: content hash of all that decides the weights.
        model: the manifest's model entry.
        recipe: None for a cell that is measured as it is.
        corpus: folder of the prepared data, with the tokenizer.
        parent: folder of the cell whose weights are the start; None for the model as it is.
        reference: folder of the reference log-probabilities, where the method needs them.
    """

    folder: Path
    stage_hash: str
    seed: int
    model: Mapping[str, Any]
    recipe: Recipe | None
    corpus: Path
    parent: Path | None
    reference: Path | None


def read_settings(folder: Path) -> TrainSettings:
    """The settings of a cell.

    Raises:
        InputFault: the folder has no cell.json, or in it are an unknown or missing key, an unknown method, a
            value that the method does not allow.
    """
    path = folder / "cell.json"
    if not path.is_file():
        raise InputFault(f"{path} is missing; cells are made by: python -m experiments.run MANIFEST")
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        root = folder.resolve().parents[1]
        recipe = _recipe(cell["train"], root) if cell["train"] else None
        stored = recipe is not None and recipe.method.stored_reference(recipe.params)
        if stored and not cell["reference"]:
            name = cell["train"]["method"]
            raise MethodError(f"{name} needs reference log-probabilities, but reference is null; {_REMEDY}")
        return TrainSettings(
            folder=folder.resolve(),
            stage_hash=cell["hashes"]["train"],
            seed=cell["seed"],
            model=cell["model"],
            recipe=recipe,
            corpus=root / cell["corpus"],
            parent=root / cell["parent"] if cell["parent"] else None,
            reference=root / cell["reference"] if cell["reference"] else None,
        )
    except json.JSONDecodeError as error:
        raise InputFault(f"{path}: not a JSON document ({error}); {_REMEDY}") from None
    except KeyError as error:
        raise InputFault(f"{path}: key {error} is missing; {_REMEDY}") from None
    except MethodError as error:
        raise InputFault(f"{path}: {error}") from None


def _recipe(train: Mapping[str, Any], root: Path) -> Recipe:
    method, given = resolve(train["method"]), train["params"]
    params = method.check_params(given)
    _same_keys("train.params", given, params)
    training = _training(train["training"])
    if training.per_device_batch_size == "auto" and method.batch_coupled:
        raise MethodError(
            f"{method.name}: losses depend on the micro-batch; per_device_batch_size must be a number"
        )
    return Recipe(method=method, params=params, training=training, data=root / train["data"])


def speed_of(given: Mapping[str, Any] | str | None) -> SpeedSettings:
    """Settings of speed by name, or as a JSON text; those that are not given have their defaults.

    Raises:
        InputFault: a name that there is not.
    """
    try:
        given = json.loads(given) if isinstance(given, str) else given or {}
    except json.JSONDecodeError as error:
        raise InputFault(f'speed is no JSON document ({error}); write \'{{"sharing": "off"}}\'') from None
    known = [field.name for field in dataclasses.fields(SpeedSettings)]
    for name in given:
        if name not in known:
            raise InputFault(f"speed has no '{name}'; it has: {', '.join(known)}")
    return SpeedSettings(**given)


def _training(given: Mapping[str, Any]) -> TrainingSettings:
    _same_keys("train.training", given, [field.name for field in dataclasses.fields(TrainingSettings)])
    speed = given["speed"]
    _same_keys("train.training.speed", speed, [field.name for field in dataclasses.fields(SpeedSettings)])
    return TrainingSettings(**{**given, "speed": SpeedSettings(**speed)})


def _same_keys(place: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Every value that is used must stand in cell.json: a later default must not change what a cell means."""
    wrong = sorted(set(given) ^ set(known))
    if wrong:
        raise MethodError(f"{place} has unknown or missing keys: {', '.join(wrong)}; {_REMEDY}")
