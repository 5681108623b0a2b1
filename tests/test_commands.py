"""Commands by themselves: their usage lines, a folder that holds nothing, a reader that goes away."""

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import changed, write

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    [
        "experiments.pairs",
        "experiments.prepare",
        "experiments.plan",
        "po.train",
        "po.reference",
        "po.methods_table",
        "eval.metrics_table",
    ],
)
def test_help_ends_with_0_and_names_the_command_as_it_is_typed(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")


@pytest.mark.parametrize("module", ["experiments.pairs", "experiments.prepare", "po.reference"])
def test_a_folder_without_a_unit_is_told_in_one_line(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.import_module(module).main([str(tmp_path)]) == 65
    remedy = "it is written by: python -m experiments.run MANIFEST"
    assert capsys.readouterr().err == f"error: {tmp_path / 'unit.json'} is missing; {remedy}\n"


@pytest.mark.parametrize("module", ["experiments.pairs", "experiments.prepare"])
def test_a_damaged_unit_is_told_in_one_line(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unit.json").write_text('{"kind": ')
    assert importlib.import_module(module).main([str(tmp_path)]) == 65
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'unit.json'}: not a whole JSON document")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["experiments.plan", "MANIFEST", "--stages"],
        ["experiments.status", "RUNS"],
        ["po.methods_table"],
        ["eval.metrics_table"],
    ],
    ids=lambda command: command[0],
)
def test_a_reader_that_goes_away_ends_a_table_in_silence(tmp_path: Path, command: list[str]) -> None:
    manifest = write(tmp_path, changed(seeds=list(range(40))))
    if "RUNS" in command:
        from experiments.loading import load

        load(manifest, tmp_path / "runs").write_plan()
    places = {"MANIFEST": str(manifest), "RUNS": str(tmp_path / "runs" / "small")}
    program = subprocess.Popen(
        [sys.executable, "-m", *(places.get(word, word) for word in command)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None and program.stderr is not None
    program.stdout.close()
    assert program.stderr.read() == ""
    assert program.wait(timeout=60) in (1, -signal.SIGPIPE)
    program.stderr.close()
