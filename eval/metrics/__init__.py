"""Every metric, one entry each. Importing this table loads no metric library and no model."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from eval.faults import EvalError, unknown_name
from eval.metrics.base import (
    Example,
    Metric,
    MetricUnavailable,
    Scores,
    ScoringError,
    SegmentScore,
    Signatures,
)
from eval.metrics.languages import UNSPACED, language
from eval.metrics.overlap import Bleu, ChrF

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Example",
    "Metric",
    "MetricUnavailable",
    "Scores",
    "ScoringError",
    "SegmentScore",
    "Signatures",
    "choose_metrics",
    "default_metrics",
]

_ENTRIES: tuple[Metric, ...] = (Bleu(), ChrF("chrf", word_order=0), ChrF("chrf++", word_order=2))

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ENTRIES})

DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"translation": ("bleu", "chrf", "chrf++"), "summarization": ("chrf",)}
)


def default_metrics(task_type: str, target_lang: str | None = None) -> tuple[str, ...]:
    """Names of the metrics that a task gets if it names none.

    Args:
        task_type: ``"translation"`` or ``"summarization"``.
        target_lang: chrF++ is left out where words are not separated by spaces.

    Raises:
        EvalError: the task type is unknown.
    """
    if task_type not in DEFAULT_METRICS:
        raise unknown_name("task type", task_type, DEFAULT_METRICS)
    names = DEFAULT_METRICS[task_type]
    return tuple(name for name in names if name != "chrf++" or language(target_lang) not in UNSPACED)


def choose_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics with these names, each once.

    Raises:
        EvalError: a name is unknown; the message has the nearest one.
    """
    chosen = {}
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        chosen[name] = METRICS[name]
    if not chosen:
        raise EvalError(f"no metric was named. Known: {', '.join(METRICS)}.")
    return tuple(chosen.values())
