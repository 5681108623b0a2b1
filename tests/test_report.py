import json
import re

import pandas as pd
import pytest
from run_folder import CHRF_SIGNATURE, REFERENCES, RunFolder, outputs, write_json, write_measurement

from reports.build import main

ATTACK = '<script>alert("x")</script> <img src=x onerror=alert(1)> | pipe\nnew line'
BASELINE = {1: [ATTACK, *outputs(0.3, 1)[1:]], 2: outputs(0.3, 2)}


def build(root, *words):
    return main([str(root), "--trials", "300", *words])


def page(root):
    return (root / "report/report.html").read_text(encoding="utf-8")


def document(root):
    return (root / "report/report.md").read_text(encoding="utf-8")


def table(root, name):
    return pd.read_csv(root / f"report/{name}.csv")


def result(root, method, metric="chrf"):
    found = table(root, "results").query("method == @method and metric == @metric")
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "demo")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid with every state: finished, one seed, failed, blocked, running, not started."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "demo")
    for seed in (1, 2):
        run.done("sft", seed, 0.3, hypotheses=BASELINE[seed])
        run.done("dpo", seed, 0.1, pairs_scorer="chrf")
        run.done("simpo", seed, 0.6, alarmed=True)
    run.done("copy", 1, 0.3)
    run.done("ipo", 1, 0.1, versions={"torch": "2.12.0", "transformers": "5.19.0"})
    failed = run.cell("kto", 1)
    run.status(failed, train="failed:torch.OutOfMemoryError")
    run.cell("kto2", 1, parent=failed)
    run.status(run.cell("orpo", 1), train="done", generate="running")
    run.entry("cpo", 1)
    root = run.plan()
    assert build(root) == 0
    return root


def test_the_first_sentence_follows_from_the_table(grid):
    found = result(grid, "dpo", "bleu")
    said = re.search(r"<p class=\"answer\">(.*?)</p>", page(grid))[1]
    evidence = f"by {found['difference']:.2f} (Holm p = {found['p_holm']:.4f}, both seeds) over sft"
    assert said.startswith(f"On test (tiny, numbers), dpo raises bleu {evidence}")
    assert "1 of 4 methods is worse" in said
    assert "1 of 4 methods differs, but with one seed" in said


def test_verdicts_and_seed_counts_of_the_main_table(grid):
    verdicts = {name: result(grid, name)["verdict"] for name in ("dpo", "simpo", "ipo", "copy")}
    assert verdicts == {"dpo": "better", "simpo": "worse", "ipo": "one seed", "copy": "no difference shown"}
    assert result(grid, "dpo")["n_seeds"] == 2
    assert result(grid, "dpo")["p_holm"] == pytest.approx(4 * result(grid, "dpo")["p_raw"])


def test_means_are_those_of_the_scores_files(grid):
    files = grid.glob("cells/tiny.numbers.dpo.s*/generate/*/scores.json")
    scores = [json.loads(path.read_text())["scores"] for path in files]
    values = [entry["score"] for entries in scores for entry in entries if entry["metric"] == "chrf"]
    assert len(values) == 2
    assert result(grid, "dpo")["mean"] == pytest.approx(sum(values) / 2)
    assert f"{sum(values) / 2:.2f}" in page(grid)


def test_every_column_carries_its_signature(grid):
    assert CHRF_SIGNATURE in page(grid)
    assert CHRF_SIGNATURE in document(grid)
    assert set(table(grid, "results").query("metric == 'chrf'")["signature"].dropna()) == {CHRF_SIGNATURE}


def test_unfinished_cells_are_dashes_with_their_reason(grid):
    states = table(grid, "coverage").set_index("cell")
    expected = {
        "tiny.numbers.kto.s1": ("failed", "train: torch.OutOfMemoryError"),
        "tiny.numbers.kto2.s1": ("blocked", "tiny.numbers.kto.s1 failed"),
        "tiny.numbers.orpo.s1": ("running", "generate"),
        "tiny.numbers.cpo.s1": ("missing", "not started"),
    }
    assert {name: tuple(states.loc[name, ["state", "reason"]]) for name in expected} == expected
    assert states.loc["tiny.numbers.dpo.s1", "state"] == "done"
    row = next(line for line in document(grid).split("\n") if line.startswith("| kto |"))
    dash = "–<br>failed: train: torch.OutOfMemoryError"
    assert row == f"| kto | 0 of 1 | {dash} | {dash} |"
    assert pd.isna(result(grid, "kto")["mean"])


def test_warnings_name_judge_overlap_versions_single_seeds_and_alarms(grid):
    text = document(grid)
    assert "chrf built the training pairs" in text
    assert "3 test rows also occur in the train data" in text
    assert "torch: 2.13.0 (7 cells, as tiny.numbers.sft.s1); 2.12.0 (tiny.numbers.ipo.s1)" in text
    assert "tiny, numbers: trained under different conditions; torch: 2.13.0 (7 cells" in text
    assert "one seed only for copy, ipo" in text
    assert "simpo on test (tiny, numbers): alarm for empty_rate, seq_rep_4" in text


def test_diagnostics_hold_the_length_gain_against_the_baseline(grid):
    found = table(grid, "diagnostics").query("diagnostic == 'length_gain_vs_sft'").set_index("method")
    assert set(found.index) == {"dpo", "simpo", "copy", "ipo"}
    pairs = zip(outputs(0.1, 1), outputs(0.1, 2), BASELINE[1], BASELINE[2], strict=True)
    ratios = [(len(a) + len(b) - len(c) - len(d)) / (len(c) + len(d)) for a, b, c, d in pairs]
    assert found.loc["dpo", "value"] == pytest.approx(sum(ratios) / len(ratios))


def test_training_values_come_from_the_logs(grid):
    found = table(grid, "training").set_index(["method", "seed"])
    assert found.loc[("dpo", 1), "rewards/margins"] == pytest.approx(4.0)
    assert found.loc[("dpo", 1), "change of logps/chosen"] == pytest.approx(-3.0)
    assert found.loc[("dpo", 1), "seconds"] == 12.5
    assert found.loc[("dpo", 1), "tokens"] == 12345
    assert pd.isna(found.loc[("sft", 1), "rewards/margins"])


def test_outputs_are_escaped_in_both_documents(grid):
    for text in (page(grid), document(grid)):
        assert "&lt;script&gt;alert(" in text
        assert "<script" not in text
        assert "<img src=x" not in text
    assert "\\| pipe new line" in document(grid)


def test_the_page_loads_nothing_and_runs_nothing(grid):
    text = page(grid)
    assert "default-src 'none'" in text
    references = re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert references
    assert all(each.startswith(("data:image/svg+xml;base64,", "#")) for each in references)
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(", text)


def test_figures_have_words_for_those_who_cannot_see_them(grid):
    spoken = re.findall(r'<img [^>]*alt="([^"]+)"', page(grid))
    assert len(spoken) == 2
    assert f"dpo {result(grid, 'dpo')['mean']:.2f}" in spoken[0]
    assert "Learning curves of rewards/margins and rewards/accuracies" in spoken[1]
    assert len(list((grid / "report/figures").glob("*.svg"))) == 2


def test_examples_show_the_largest_gaps_between_baseline_and_the_better_method(grid):
    section = document(grid).split("## Example outputs")[1].split("## Coverage")[0]
    header = "| source | reference | sft | dpo |"
    assert header in section
    rows = section.split(header)[1].strip().split("\n")[1:9]
    gaps = []
    for row in rows:
        source, reference, *scores = [part.strip() for part in row.strip("| ").split(" | ")]
        assert reference == REFERENCES[int(source.removeprefix("source "))]
        base, ours = (float(re.search(r"bleu ([\d.]+)$", part)[1]) for part in scores)
        gaps.append(abs(base - ours))
    assert len(gaps) == 8
    assert gaps == sorted(gaps, reverse=True)


def test_the_footer_states_limits_seed_and_trials(grid):
    footer = document(grid).split("\n---\n")[1]
    assert "say nothing about another domain" in footer
    assert "300 assignments" in footer and "seed 12345" in footer
    assert "Manifest abababababab" in footer


def test_building_again_writes_the_same_bytes(grid):
    before = {path: path.read_bytes() for path in (grid / "report").rglob("*") if path.is_file()}
    assert build(grid) == 0
    assert {path: path.read_bytes() for path in (grid / "report").rglob("*") if path.is_file()} == before


def test_the_command_prints_the_main_table_and_the_page(grid, capsys, tmp_path):
    assert build(grid, "--out", str(tmp_path / "elsewhere"), "--baseline", "simpo") == 0
    lines = capsys.readouterr().out.rstrip().split("\n")
    assert lines[-1] == str(tmp_path / "elsewhere/report.html")
    assert (tmp_path / "elsewhere/report.html").is_file()
    row = next(line for line in lines if line.startswith("chrf ↑  sft "))
    assert row.split()[-1] == "better"


def test_seeds_that_differ_are_compared_with_the_baselines_mean(run):
    run.done("sft", 1, 0.3)
    for seed in (1, 2, 3):
        run.done("dpo", seed, 0.1)
    root = run.plan()
    assert build(root) == 0
    found = result(root, "dpo")
    assert (found["n_seeds"], found["verdict"]) == (3, "better")
    assert found["seeds_low"] <= found["interquartile_mean"] <= found["seeds_high"]
    seeds = table(root, "seeds").query("metric == 'chrf' and method == 'dpo'")
    base = result(root, "sft")["mean"]
    assert (seeds["value"] - seeds["difference"]).tolist() == pytest.approx([base] * 3)
    assert "the baseline sft has one seed" in document(root)


def test_without_a_plan_all_cells_on_disk_are_reported(run):
    for method, rate in (("sft", 0.3), ("dpo", 0.1)):
        run.done(method, 1, rate)
    assert build(run.root) == 0
    assert result(run.root, "dpo")["verdict"] == "one seed"


def test_cells_that_the_plan_does_not_name_are_left_out(run):
    run.done("sft", 1, 0.3)
    run.plan()
    run.done("dpo", 1, 0.1)
    assert build(run.root) == 0
    assert set(table(run.root, "results")["method"]) == {"sft"}


def test_the_selected_point_is_marked_and_an_edge_is_a_warning(tmp_path):
    run = RunFolder(tmp_path / "demo", select={"metric": "chrf", "split": "dev"})
    run.done("sft", 1, 0.3, tests=("test", "dev"))
    for beta, rate in ((0.01, 0.5), (0.1, 0.3), (1.0, 0.1)):
        run.done("dpo", 1, rate, axes={"beta": beta}, tests=("test", "dev"))
    root = run.plan()
    assert build(root) == 0
    assert "| dpo beta=1 ★ |" in document(root)
    assert "the best beta = 1 is the largest value tried (0.01, 0.1, 1)" in document(root)
    assert table(root, "results").query("selected")["method"].unique().tolist() == ["dpo beta=1"]
    assert document(root).index("**test (tiny") < document(root).index("**dev (tiny")


def test_generations_changed_after_scoring_are_not_used(run):
    run.done("sft", 1, 0.3)
    folder = run.done("dpo", 1, 0.1)
    generations = next(folder.glob("generate/*/generations.jsonl"))
    generations.write_text(generations.read_text() + "\n")
    root = run.plan()
    assert build(root) == 0
    assert pd.isna(result(root, "dpo")["mean"])
    assert "changed after it was scored; run 'python -m eval.score' again" in document(root)


def test_incomplete_generations_are_not_used(run):
    run.done("sft", 1, 0.3)
    path = next(run.done("dpo", 1, 0.1).glob("generate/*/generation.json"))
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    root = run.plan()
    assert build(root) == 0
    assert pd.isna(result(root, "dpo")["mean"])
    assert "its generations are not complete" in document(root)


def test_a_metric_with_a_missing_segment_is_left_out_and_the_others_stay(run):
    run.done("sft", 1, 0.3)
    path = next(run.done("dpo", 1, 0.1).glob("generate/*/segments.parquet"))
    frame = pd.read_parquet(path)
    frame.drop(frame.index[frame["metric"] == "chrf"][0]).to_parquet(path)
    root = run.plan()
    assert build(root) == 0
    assert pd.isna(result(root, "dpo", "chrf")["mean"])
    assert result(root, "dpo", "bleu")["verdict"] == "one seed"
    assert "chrf: 59 segment rows for 60 segments" in document(root)


def test_scores_that_contradict_their_segments_are_left_out(run):
    path = next(run.done("sft", 1, 0.3).glob("generate/*/scores.json"))
    scores = json.loads(path.read_text())
    scores["scores"][1]["score"] += 1
    path.write_text(json.dumps(scores))
    root = run.plan()
    assert build(root) == 0
    assert "the segments give" in document(root)
    assert set(table(root, "results")["metric"]) == {"bleu"}


def test_another_signature_is_not_compared(run):
    run.done("sft", 1, 0.3)
    path = next(run.done("dpo", 1, 0.1).glob("generate/*/scores.json"))
    path.write_text(path.read_text().replace("version:2.6.0", "version:2.5.1"))
    root = run.plan()
    assert build(root) == 0
    assert "–<br>not comparable" in document(root)
    assert "not comparable and left out: dpo, seed 1: signature nrefs:1|case:mixed|eff:yes" in document(root)


def test_another_schema_is_refused_by_file(run):
    run.done("sft", 1, 0.3)
    folder = run.done("dpo", 1, 0.1)
    record = json.loads((folder / "cell.json").read_text())
    (folder / "cell.json").write_text(json.dumps(record | {"schema": 2}))
    root = run.plan()
    assert build(root) == 0
    assert "cell.json: schema 2; this report reads schema 1" in document(root)
    assert table(root, "coverage").set_index("method").loc["dpo", "state"] == "unreadable"


def test_a_torn_last_line_of_a_running_log_is_dropped(run):
    folder = run.done("sft", 1, 0.3)
    with (folder / "train_log.jsonl").open("a") as log:
        log.write('{"step": 50, "lo')
    root = run.plan()
    assert build(root) == 0
    assert table(root, "training")["loss"].tolist() == pytest.approx([0.54])


def test_a_baseline_that_the_plan_names_but_nobody_has_is_a_warning(tmp_path):
    run = RunFolder(tmp_path / "demo", baseline="base")
    run.done("dpo", 1, 0.1)
    root = run.plan()
    assert build(root) == 0
    assert "there is no method 'base'" in document(root)
    assert result(root, "dpo")["mean"] > 50


def test_a_grid_without_scores_gets_a_report_that_says_so(run):
    run.entry("sft", 1)
    root = run.plan()
    assert build(root) == 0
    assert "No cell is scored yet" in page(root)
    assert table(root, "coverage")["state"].tolist() == ["missing"]


def test_an_empty_folder_is_a_clear_message_and_writes_nothing(tmp_path, capsys):
    assert build(tmp_path) == 2
    assert "nothing to report; run 'python -m experiments.run MANIFEST' first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_and_an_unknown_baseline_are_wrong_usage(run, tmp_path, capsys):
    assert build(tmp_path / "nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    run.done("sft", 1, 0.3)
    assert build(run.plan(), "--baseline", "sfd") == 2
    assert "did you mean 'sft'?" in capsys.readouterr().err


def test_a_plan_that_is_not_json_is_named(tmp_path, capsys):
    (tmp_path / "plan.json").write_text("{")
    assert build(tmp_path) == 2
    assert "plan.json: cannot be read" in capsys.readouterr().err


def test_hand_scored_cells_without_status_files_count_as_done(run):
    folder = run.done("sft", 1, 0.3)
    for path in folder.glob("status.*.json"):
        path.unlink()
    root = run.plan()
    assert build(root) == 0
    assert table(root, "coverage")["state"].tolist() == ["done"]


def test_the_untrained_model_needs_no_training_status(run):
    folder = run.cell("base", None)
    record = json.loads((folder / "cell.json").read_text())
    write_json(
        folder / "cell.json",
        **{key: value for key, value in record.items() if key != "schema"} | {"train": None},
    )
    write_measurement(folder / "generate/test--1111111111", outputs(0.5, 1))
    run.status(folder, generate="done", score="done")
    root = run.plan()
    assert build(root) == 0
    assert table(root, "coverage")["state"].tolist() == ["done"]
