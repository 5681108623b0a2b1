"""slurm/grid.sh finds the project and the interpreter, or says what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GRID_SH = ROOT / "slurm" / "grid.sh"


def grid_sh(folder, *arguments, **environment):
    """The script as SLURM would run it: a copy, in the folder that sbatch was called in."""
    copy = folder / "slurm_script"
    shutil.copy(GRID_SH, copy)
    search = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(folder)}
    return subprocess.run(
        ["bash", str(copy), *arguments], cwd=folder, env=search | environment, capture_output=True, text=True
    )


@pytest.fixture
def grid(tmp_path):
    """A folder with a project elsewhere, whose interpreter tells what it was called with."""
    (tmp_path / "bin").mkdir()
    project = tmp_path / "a project" / "of mine"
    (project / "slurm").mkdir(parents=True)
    (project / "slurm" / "submit.py").touch()
    (project / ".venv" / "bin").mkdir(parents=True)
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$PWD"; echo "$PYTHONPATH"; printf "%s\\n" "$@"\n')
    python.chmod(0o755)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "JobId=$4"; echo "   Command={project}/slurm/grid.sh m.yaml --only x"\n'
    )
    scontrol.chmod(0o755)
    return tmp_path, project


def test_outside_of_slurm_the_script_says_what_to_do():
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "slurm/grid.sh", "m.yaml"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "sbatch slurm/grid.sh m.yaml" in done.stderr
    assert "python -m experiments.run m.yaml" in done.stderr


def test_the_script_finds_the_project_where_sbatch_was_given_it(grid):
    folder, project = grid
    done = grid_sh(folder, "my study.yaml", "--only", "method=dpo", SLURM_JOB_ID="7")
    wanted = [str(folder), str(project), "-m", "slurm.submit", "my study.yaml", "--only", "method=dpo"]
    assert done.stdout.splitlines() == wanted, done.stderr


def test_the_script_takes_the_project_and_the_interpreter_that_it_is_told(grid):
    folder, project = grid
    moved = folder / "elsewhere"
    shutil.move(project, moved)
    (folder / "bin" / "scontrol").unlink()
    python = moved / ".venv" / "bin" / "python"
    shutil.move(python, folder / "interpreter")
    done = grid_sh(
        folder,
        SLURM_JOB_ID="7",
        GRID_ROOT=str(moved),
        GRID_PYTHON=str(folder / "interpreter"),
        PYTHONPATH="/more",
    )
    assert done.stdout.splitlines() == [str(folder), f"{moved}:/more", "-m", "slurm.submit"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GRID_ROOT": "/nowhere"}, "GRID_ROOT is /nowhere"),
        ({"GRID_PYTHON": "/no/python"}, "there is no /no/python; run 'make setup'"),
    ],
)
def test_what_the_script_cannot_find_it_names(grid, environment, words):
    done = grid_sh(grid[0], "m.yaml", SLURM_JOB_ID="7", **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout


def test_where_the_project_is_nowhere_the_script_says_so(grid):
    folder, project = grid
    shutil.rmtree(project)
    done = grid_sh(folder, "m.yaml", SLURM_JOB_ID="7")
    assert done.returncode == 2
    assert f"the project is not in {folder}; call sbatch there, or set GRID_ROOT" in done.stderr
    assert sys.executable not in done.stderr
