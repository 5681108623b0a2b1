"""What all tests share: no network, one thread each (they run side by side), a count of scoring."""

import os

import pytest

from eval.metrics import METRICS

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def counted(monkeypatch):
    """How many segments each metric has really scored."""
    calls = {}
    for name, metric in METRICS.items():
        original = metric.score_segments

        def score_segments(examples, lang=None, *, _name=name, _original=original):
            calls[_name] = calls.get(_name, 0) + len(examples)
            return _original(examples, lang)

        monkeypatch.setattr(metric, "score_segments", score_segments)
    return calls


@pytest.fixture
def site(tmp_path, monkeypatch):
    from slurm_site import Site

    return Site(tmp_path, monkeypatch)
