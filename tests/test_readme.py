"""The README tells the truth: its tables are the code's, its commands exist, its links lead somewhere."""

import importlib
import re
from pathlib import Path

import pytest

from eval.metrics import METRICS
from eval.metrics.table import KINDS
from eval.metrics_table import kinds_table, metric_table
from po.methods_table import methods_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


EVALUATION = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
TABLES = [
    (README, "methods", methods_table()),
    (README, "metrics", metric_table(METRICS.values())),
    (EVALUATION, "kinds", kinds_table(KINDS)),
]


@pytest.mark.parametrize(("page", "name", "table"), TABLES, ids=["methods", "metrics", "kinds"])
def test_a_table_of_the_docs_is_what_the_code_prints(page: str, name: str, table: str) -> None:
    inside = page.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    assert inside.strip() == table.strip(), f"paste what the module prints between the marks of '{name}'"


def test_every_module_that_is_called_has_a_command_line_that_explains_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    modules = sorted(set(re.findall(r"python -m ((?:experiments|po|eval|reports|slurm)\.\w+)", README)))
    assert len(modules) >= 10
    for name in modules:
        module = importlib.import_module(name)
        if name.endswith("_table"):
            continue
        with pytest.raises(SystemExit) as stopped:
            module.main(["--help"])
        assert stopped.value.code == 0
        assert "python -m" in capsys.readouterr().out


def test_every_link_leads_to_a_file_and_every_target_is_in_the_makefile() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_manifest_that_comes_along_is_shown() -> None:
    for path in (ROOT / "experiments/manifests").glob("*.yaml"):
        assert path.name in README
