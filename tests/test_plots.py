import pytest

from reports.columns import Column, Row
from reports.plots import _window, metric_figure
from reports.variants import Variant


def column(scores):
    rows = tuple(
        Row(
            variant=Variant(label=method, method=method, axes={}, cells=()),
            values=dict(enumerate(values, start=1)),
            missing=(),
            seed_interval=None,
            is_baseline=method == "sft",
        )
        for method, values in scores.items()
    )
    names = {"model": "tiny", "task": "toy", "test": "test", "metric": "chrf", "unit": "points, 0-100"}
    return Column(**names, higher_is_better=True, signature="s", n_segments=10, rows=rows)


NEAR = {"sft": [60.0, 62.0], "dpo": [61.0, 61.5], "cpo": [60.5, 63.0], "simpo": [56.0, 57.0]}


def test_a_method_far_from_all_others_is_an_arrow_and_does_not_squeeze_them():
    assert _window(column(NEAR | {"base": [0.1]})) == (56.0, 63.0)
    svg = metric_figure([column(NEAR | {"base": [0.1]})]).svg
    assert svg != metric_figure([column(NEAR)]).svg
    assert "← 0.10" in svg


@pytest.mark.parametrize("scores", [NEAR, {"sft": [60.0]}, {"sft": [60.0], "dpo": [60.0]}])
def test_without_an_outlier_every_seed_is_inside(scores):
    values = [value for seeds in scores.values() for value in seeds]
    assert _window(column(scores)) == (min(values), max(values))
