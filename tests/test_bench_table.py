"""Every benchmark is a command, all of them are listed, and the exit status tells of sides that differ."""

import ast
import math
import sys
import types
from pathlib import Path

import pytest

from benchmarks import __main__ as everything
from benchmarks import sft_step, table
from benchmarks.resident import growth_from_now

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
OF_ANOTHER = {"comet"}  # measured by `scoring`


def _benchmarks() -> list[str]:
    """Modules that have figures to show."""
    return [
        path.stem
        for path in sorted(FOLDER.glob("*.py"))
        if any(getattr(node, "name", "") == "measure" for node in ast.parse(path.read_text()).body)
    ]


def test_all_benchmarks_are_listed() -> None:
    listed = [f"benchmarks.{name}" for name in _benchmarks() if name not in OF_ANOTHER]
    assert sorted(everything.NAMES) == sorted(listed)


@pytest.mark.parametrize("name", _benchmarks())
def test_a_benchmark_ends_with_the_status_of_its_table(name: str) -> None:
    last = ast.unparse(ast.parse((FOLDER / f"{name}.py").read_text()).body[-1])
    assert last.startswith("if __name__ == '__main__':\n    sys.exit(")


def test_what_differs_is_named_in_one_line_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        table.equal_within("loss", 1e-3, 1e-4),
        table.equal_within("gradient", 1e-5, 1e-4),
        table.identical("outputs", False),
    ]
    assert table.finish(rows) == 1
    out, err = capsys.readouterr()
    assert err == (
        "sides that must be equal are not: loss (1.0e-03, must be <= 0.0001); outputs (NO, must be yes)\n"
    )
    assert out.count("DIFFERENT") == 2


def test_a_goal_that_is_missed_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.finish([table.at_least("speed", 1.0, 2.0), table.identical("outputs", True)]) == 0
    out, err = capsys.readouterr()
    assert "NOT MET" in out and err == ""


def test_a_difference_that_is_no_number_is_the_greatest() -> None:
    assert table.greatest([]) == 0
    assert table.greatest([0.1, math.nan, 0.2]) == math.inf
    assert table.equal_within("loss", math.nan, 1.0)[-1] == table.DIFFERENT


@pytest.mark.parametrize(("same", "status"), [(True, 0), (False, 1)])
def test_the_run_of_all_tells_of_a_difference(
    same: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = types.SimpleNamespace(measure=lambda: [table.identical("outputs", same)])
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    monkeypatch.setattr(everything, "NAMES", ("stand_in",))
    assert everything.main([]) == status
    assert ("sides that must be equal are not: outputs" in capsys.readouterr().err) != same


def test_a_benchmark_that_fails_is_named_and_the_others_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = types.SimpleNamespace(measure=lambda: [("figure", "1")])
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    monkeypatch.setattr(everything, "NAMES", ("no_such_benchmark", "stand_in"))
    assert everything.main([]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == ["figure", "1"]
    assert err.splitlines()[-1] == "failed, with what is said above: no_such_benchmark"


def test_a_supervised_step_is_compared_with_that_of_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    # it would hold for all tests behind, whose forked children can compute with one thread only
    monkeypatch.setattr(sft_step, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(sft_step, "ROWS", 4)
    monkeypatch.setattr(sft_step, "STEPS", 2)
    rows = {figure: verdict for figure, _, _, verdict in sft_step.measure()}
    assert rows["SFT step, loss difference"] == rows["SFT step, gradient difference, relative"] == "equal"
    monkeypatch.setattr(sft_step, "TOLERANCE", -1.0)
    assert [row[-1] for row in sft_step.measure()].count(table.DIFFERENT) == 2


def test_growth_is_the_peak_and_not_what_is_left() -> None:
    grown = growth_from_now()
    del bytearray(b"x" * (64 * 2**20))[:]
    assert grown() > 60 * 2**20
    assert growth_from_now()() < 60 * 2**20
