"""Files of metric definitions (``--define``), and the table of what a definition may set."""

import pytest

from eval.faults import EvalError
from eval.metrics.definitions import read_definitions
from eval.metrics.table import KINDS
from eval.metrics_table import kinds_table
from eval.score import main as score


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "metrics.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_variables_are_filled_in_from_the_environment(write, monkeypatch):
    monkeypatch.setenv("SCORERS", "/models")
    path = write('mine: {kind: reward, model: "${SCORERS}/rm", max_length: 64}\n')
    assert read_definitions(path) == {"mine": {"kind": "reward", "model": "/models/rm", "max_length": 64}}


def test_a_variable_that_is_not_set_is_named(write, monkeypatch):
    monkeypatch.delenv("SCORERS", raising=False)
    with pytest.raises(EvalError, match="the environment variable SCORERS is not set"):
        read_definitions(write('mine: {kind: reward, model: "${SCORERS}/rm"}\n'))


def test_of_a_manifest_its_metrics_are_taken(write):
    path = write("version: 1\nmetrics:\n  chrf1: {kind: chrf, word_order: 1}\nseeds: [1, 2]\n")
    assert read_definitions(path) == {"chrf1": {"kind": "chrf", "word_order": 1}}


def test_a_file_that_is_not_there_is_told_in_one_plain_line(tmp_path, capsys):
    path = tmp_path / "nofile.yaml"
    assert score(["--hyp", "out", "--define", str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: no such file\n"
    assert score(["--hyp", "out", "--define", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: cannot be read (Is a directory)\n"


def test_a_metric_may_be_called_metrics(write):
    assert read_definitions(write("metrics: {kind: chrf}\n")) == {"metrics": {"kind": "chrf"}}


def test_the_default_zero_is_not_shown_as_false():
    table = kinds_table({"chrf": KINDS["chrf"], "ter": KINDS["ter"]})
    assert "`word_order` (0)" in table
    assert "`case_sensitive` (false)" in table and "`punctuation` (true)" in table
