"""Where a model comes from, as the stages read it."""

from pathlib import Path

import pytest
from manifests import REMOVED, loaded


def test_variables_of_the_environment_are_filled_in_for_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "config.json").write_text("{}")
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    plan = loaded(tmp_path, models__tiny__from_scratch=REMOVED, models__tiny__id="${MODELS}/tiny")
    here = str(tmp_path / "models" / "tiny")
    cell = next(cell for cell in plan.grid.cells if cell.needs_reference)
    corpus = plan.study.corpus("tiny", "numbers")
    for unit in (plan.study.cell(cell), plan.study.reference(cell), corpus):
        assert unit.document["model"]["id"] == here
    assert here not in str(plan.study.cell(cell).document["hashes"])
