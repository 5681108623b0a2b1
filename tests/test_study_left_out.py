"""Rows that are left out are shown: to who runs a study, and to who reads its report."""

import json

from study import MANIFEST, run, write_manifest

from reports import build

DATA = MANIFEST.replace("max_completion_length: 48", "max_completion_length: 42")


def test_left_out_rows_are_told_when_they_are_and_in_the_report(tmp_path):
    write_manifest(tmp_path, DATA)
    printed = run(tmp_path, "--only", "method=sft")
    written = [json.loads(path.read_text()) for path in (tmp_path / "runs/micro/data").glob("*/prepare.json")]
    (splits,) = [found["splits"] for found in written if "splits" in found]
    lost = {split: found["dropped_long_completion"] for split, found in splits.items()}
    assert lost["sft"] > 0
    assert f"dropped {lost['sft']} long completion" in printed
    assert build.main([str(tmp_path / "runs/micro")]) == 0
    report = (tmp_path / "runs/micro/report/report.md").read_text()
    assert f"left out: {lost['sft']} long completion" in report
