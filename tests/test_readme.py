"""The README tells the truth: its tables are the code's, its commands exist, its links lead somewhere."""

import importlib
import json
import re
from pathlib import Path

import pytest
from tiny_library import text_pairs, word_tokenizer
from tiny_training import tiny_llama

from eval.metrics import METRICS
from eval.metrics.table import KINDS
from eval.metrics_table import kinds_table, metric_table
from po import PreferenceTrainer
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
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_manifest_that_comes_along_is_shown() -> None:
    for path in (ROOT / "experiments/manifests").glob("*.yaml"):
        assert path.name in README


def test_the_script_of_the_readme_trains_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama().save_pretrained(tmp_path / "path/or/id")
    word_tokenizer().save_pretrained(tmp_path / "path/or/id")
    rows = "".join(json.dumps(row) + "\n" for row in text_pairs(16))
    (tmp_path / "pairs.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, PreferenceTrainer] = {}
    exec(compile(README.split("```python\n")[1].split("```")[0], "README.md", "exec"), names)
    assert names["trainer"].method.name == "simpo" and names["trainer"].state.global_step == 6
    assert (tmp_path / "out/model.safetensors").is_file()


def test_every_section_that_the_docs_point_at_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for path, section in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section in slugs, (page.name, path, section)
