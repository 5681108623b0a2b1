"""Underlying distribution matching for BCO: weights for undesirable completions by their prompts.

BCO tells desirable from undesirable completions. Where the two kinds answer different prompts, a classifier
of prompts would do as well, and the policy learns about prompts. So an undesirable completion counts the
more, the more its prompt looks like those of desirable ones.

All is drawn with the seed of the cell and computed by the model before its first step: a run that is
resumed computes the same weights again, and no checkpoint has to keep them.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from po.faults import InputFault
from po.methods.hyperparameters import ParamValue
from po.rows import Row
from po.training.collate import completions_of

_FOLDS = 5
_TOKENS_A_BATCH = 4096  # padding included; one prompt is always taken
_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PromptSample:
    """Prompts on which the classifier is fitted: as many of desirable as of undesirable completions.

    Attributes:
        prompts: indices of prompts; one may stand there more than once.
        wanted: whether the completion that brought it is desirable.
    """

    prompts: Int[np.ndarray, " sample"]
    wanted: NDArray[np.bool_]


def with_density_ratios(
    rows: Sequence[Row], model: Any, params: Mapping[str, ParamValue], seed: int
) -> list[Row]:
    """The rows with ``density_ratio``: one weight per completion, 1 for a desirable one.

    How well the classifier tells held-out prompts apart is logged as AUC: 0.5 means that both kinds answer
    alike prompts, and the weights change little; near 1 many weights are at their bounds.

    Args:
        rows: token ids; single completions with ``desirable``, or pairs.
        model: the policy before its first step.
        params: hyperparameters and options of the method, those of `po.methods.unpaired.DENSITY` among them.
        seed: decides which prompts the classifier is fitted on.

    Raises:
        InputFault: there are only desirable or only undesirable completions, or the bounds are reversed.

    Source: Jung et al. 2024 (BCO), arXiv:2404.04656, section on distribution shift.
    """
    low, high = float(params["min_density_ratio"]), float(params["max_density_ratio"])
    if low > high:
        raise InputFault(
            f"min_density_ratio {low:g} is above max_density_ratio {high:g}; they bound the same weights"
        )
    labels = [_labels(row) for row in rows]
    index: dict[tuple[int, ...], int] = {}
    places = [index.setdefault(tuple(row["prompt_ids"]), len(index)) for row in rows]
    of_wanted = np.array([p for p, each in zip(places, labels, strict=True) for want in each if want], int)
    of_unwanted = np.array([p for p, each in zip(places, labels, strict=True) for w in each if not w], int)
    sample = balanced_sample(of_wanted, of_unwanted, int(params["prompt_sample_size"]), seed)
    needed = np.unique(np.concatenate([sample.prompts, of_unwanted]))
    prompts = list(index)
    with _on_gpu(model):
        found = prompt_vectors(model, [prompts[i] for i in needed])
    vectors = np.zeros((len(prompts), found.shape[1]))
    vectors[needed] = found
    ratios = np.ones(len(prompts))
    ratios[needed] = density_ratio(_probabilities(vectors, sample, needed), low, high)
    _tell(sample, held_out_auc(vectors, sample), ratios[of_unwanted], low, high)
    return [
        row | {"density_ratio": [1.0 if wanted else float(ratios[place]) for wanted in each]}
        for row, place, each in zip(rows, places, labels, strict=True)
    ]


def density_ratio(
    probability: Float[np.ndarray, " prompts"], low: float, high: float
) -> Float[np.ndarray, " prompts"]:
    """How much likelier prompts are among those of desirable completions than among the others.

    Args:
        probability: that a prompt belongs to a desirable completion, both kinds being equally frequent.
        low: least ratio.
        high: largest ratio.

    Returns:
        p / (1 - p + 1e-8), between the bounds.
    """
    return np.clip(probability / (1 - probability + 1e-8), low, high)


def balanced_sample(
    of_wanted: Int[np.ndarray, " wanted"], of_unwanted: Int[np.ndarray, " unwanted"], size: int, seed: int
) -> PromptSample:
    """Prompts of both kinds of completions, equally many, drawn without replacement.

    Args:
        of_wanted: the prompt of each desirable completion.
        of_unwanted: the prompt of each undesirable one.
        size: prompts of each kind; fewer where there are not as many.
        seed: decides the draw.

    Raises:
        InputFault: one kind is missing.
    """
    if not len(of_wanted) or not len(of_unwanted):
        missing = "undesirable" if len(of_wanted) else "desirable"
        raise InputFault(
            "udm compares the prompts of desirable and of undesirable completions, and no completion is "
            f"{missing}; set udm to false"
        )
    size = min(size, len(of_wanted), len(of_unwanted))
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(prompts, size, replace=False) for prompts in (of_wanted, of_unwanted)]
    return PromptSample(np.concatenate(drawn), np.repeat([True, False], size))


@torch.no_grad()
def prompt_vectors(model: Any, prompts: Sequence[Sequence[int]]) -> Float[np.ndarray, "prompts width"]:
    """The mean over a prompt's tokens of the last hidden states; of an encoder-decoder model, the encoder's.

    Args:
        model: a language model of transformers, with adapters or without, on its device.
        prompts: token ids.
    """
    from po.engine.sharing import submodules_evaluating

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = inner.get_encoder() if inner.config.is_encoder_decoder else inner.base_model
    more = {} if inner.config.is_encoder_decoder else {"use_cache": False}
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: list[Any] = [None] * len(prompts)
    start = 0
    with submodules_evaluating(model):
        while start < len(order):
            longest = len(prompts[order[start]])
            taken = order[start : start + max(1, _TOKENS_A_BATCH // longest)]
            ids = torch.zeros(len(taken), longest, dtype=torch.long, device=inner.device)
            for row, i in enumerate(taken):
                ids[row, : len(prompts[i])] = torch.tensor(prompts[i])
            lengths = torch.tensor([[len(prompts[i])] for i in taken], device=inner.device)
            mask = torch.arange(longest, device=inner.device) < lengths
            hidden = body(input_ids=ids, attention_mask=mask.long(), **more)[0].float()
            means = (hidden * mask.unsqueeze(-1)).sum(dim=1) / lengths
            for i, mean in zip(taken, means.cpu().numpy(), strict=True):
                found[i] = mean
            start += len(taken)
    return np.stack(found).astype(np.float64)


def held_out_auc(vectors: Float[np.ndarray, "prompts width"], sample: PromptSample) -> float | None:
    """The AUC of the classifier on prompts that it has not seen, by cross-validation over prompts.

    A prompt that has completions of both kinds is held out with all of them.

    Args:
        vectors: of all prompts.
        sample: on which the classifier is fitted.

    Returns:
        0.5 where both kinds have alike prompts, 1 where they are told apart; None for a sample with fewer
        than five prompts of a kind.
    """
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]

    kinds = (sample.prompts[sample.wanted], sample.prompts[~sample.wanted])
    if min(len(np.unique(prompts)) for prompts in kinds) < _FOLDS:
        return None
    guessed = np.full(len(sample.prompts), np.nan)
    folds = StratifiedGroupKFold(_FOLDS).split(sample.prompts, sample.wanted, groups=sample.prompts)
    for seen, unseen in folds:
        part = PromptSample(sample.prompts[seen], sample.wanted[seen])
        if part.wanted.any() and not part.wanted.all():
            guessed[unseen] = _probabilities(vectors, part, sample.prompts[unseen])
    known = ~np.isnan(guessed)
    if len(np.unique(sample.wanted[known])) < 2:
        return None
    return float(roc_auc_score(sample.wanted[known], guessed[known]))


def _probabilities(vectors: _Numbers, sample: PromptSample, asked: NDArray[Any]) -> _Numbers:
    """Of the prompts asked for, that each belongs to a desirable completion.

    Vectors are scaled to a norm of about 1. The penalty of the regression then means the same for narrow and
    wide models; unscaled, the many numbers of a wide one would tell any few prompts apart.
    """
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    seen = vectors[sample.prompts]
    spread = seen.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0) * np.sqrt(vectors.shape[1])
    model = LogisticRegression(max_iter=1000)
    model.fit((seen - seen.mean(axis=0)) / scale, sample.wanted)
    found: _Numbers = model.predict_proba((vectors[asked] - seen.mean(axis=0)) / scale)[:, 1]
    return found


@contextlib.contextmanager
def _on_gpu(model: Any) -> Iterator[None]:
    """Within, the model is on this process's GPU, if there is one; a wrapper may place it otherwise later."""
    before = model.device
    model.to("cuda" if torch.cuda.is_available() else before)
    try:
        yield
    finally:
        model.to(before)


def _labels(row: Row) -> list[bool]:
    """Whether each completion of a row is desirable."""
    return [bool(row.get("desirable", k == 0)) for k in range(len(completions_of(row, "unpaired")))]


def _tell(sample: PromptSample, auc: float | None, ratios: _Numbers, low: float, high: float) -> None:
    from transformers.utils import logging

    shown = "not measured (too few prompts)" if auc is None else f"{auc:.3f}"
    bound = float(np.mean((ratios <= low) | (ratios >= high)))
    logging.get_logger(__name__).warning(
        f"udm: {len(sample.prompts) // 2} prompts each of desirable and of undesirable completions; AUC on "
        f"held-out prompts {shown}; weights {ratios.min():.3g} to {ratios.max():.3g}, "
        f"mean {ratios.mean():.3g}, {bound:.0%} at a bound"
    )
