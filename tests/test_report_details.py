import json
import re

import pandas as pd
import pytest
from run_folder import RunFolder

from reports.build import main
from reports.segment_details import pieces, read_details

LINE = "the <b>cat</b> sat on a mat"


def span(words, severity="minor", text=LINE, **more):
    start = text.index(words)
    return {"text": words, "severity": severity, "start": start, "end": start + len(words)} | more


def test_the_text_is_cut_where_errors_begin_and_end():
    assert pieces(LINE, [span("sat", "major"), span("mat")]) == (
        ("the <b>cat</b> ", ""),
        ("sat", "major"),
        (" on a ", ""),
        ("mat", "minor"),
    )


def test_where_spans_overlap_the_graver_one_counts():
    found = pieces(LINE, [span("sat on a", "critical"), span("cat</b> sat")])
    assert found[1:3] == (("cat</b> ", "minor"), ("sat on a", "critical"))


def test_a_span_with_other_offsets_is_found_by_its_words_and_an_unknown_one_is_not_shown():
    assert pieces(LINE, [span("mat") | {"start": 0, "end": 3}])[-1] == ("mat", "minor")
    assert pieces(LINE, [{"text": "dog", "severity": "major", "start": 0, "end": 3}]) == ((LINE, ""),)
    assert pieces(LINE, [span("mat", "no-error")]) == ((LINE, ""),)


def test_pieces_always_make_up_the_text_again():
    spans = [span("cat"), span(" on ", "major"), {"severity": "major", "start": 20, "end": 900}]
    assert "".join(piece for piece, _ in pieces(LINE, spans)) == LINE
    assert pieces("", spans) == ()


def test_details_that_are_no_object_are_refused():
    assert read_details(["a", "b"], [None, '{"truncated": true}']) == {"b": {"truncated": True}}
    with pytest.raises(ValueError, match="details of segment 'a' are no JSON object"):
        read_details(["a"], ["[1]"])


def add_details(folder, details, licence=None):
    """Details of the metric chrf by segment, and its licence, into the files of a scored cell."""
    path = next(folder.glob("generate/*/segments.parquet"))
    frame = pd.read_parquet(path)
    of_metric = frame["metric"] == "chrf"
    frame["details"] = [
        json.dumps(details[name]) if chosen and name in details else None
        for name, chosen in zip(frame["id"], of_metric, strict=True)
    ]
    frame.to_parquet(path)
    scores = next(folder.glob("generate/*/scores.json"))
    document = json.loads(scores.read_text(encoding="utf-8"))
    for entry in document["scores"]:
        if entry["metric"] == "chrf":
            entry["licence"] = licence
    scores.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("runs") / "demo")
    run.done("sft", 1, 0.3)
    text = '<i>falsch</i> und "schlecht"'
    wrong = run.done("dpo", 1, 0.9, hypotheses=[text] * 60)
    spans = [span("<i>falsch</i>", "critical", text), span('"schlecht"', "minor", text)]
    details = {f"test-{row}": {"error_spans": spans, "truncated": row < 7} for row in range(60)}
    add_details(wrong, details, licence="CC BY-NC-SA 4.0")
    for folder in run.root.glob("cells/*sft*"):
        add_details(folder, {"test-0": {"error_spans": []}}, licence="CC BY-NC-SA 4.0")
    root = run.plan()
    assert main([str(root), "--trials", "200"]) == 0
    return root / "report"


def test_errors_are_underlined_by_severity_and_escaped(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    marked = re.findall(r'<u class="(\w+)" title="\w+ error">([^<]*)</u>', page)
    assert set(marked) == {
        ("critical", "&lt;i&gt;falsch&lt;/i&gt;"),
        ("minor", "&#34;schlecht&#34;"),
    }
    assert "<i>falsch" not in page and "<script" not in page


def test_the_number_of_errors_is_told_in_words_too(report):
    document = (report / "report.md").read_text(encoding="utf-8")
    assert "chrf: 1 critical, 1 minor errors" in document


def test_cut_inputs_are_a_warning_with_their_number(report):
    document = (report / "report.md").read_text(encoding="utf-8")
    assert (
        "test (tiny, numbers): chrf read only a part of 7 inputs, longer than its model takes "
        "(at most 7 in one run)."
    ) in document
    assert "bleu read only" not in document


def test_a_restricting_licence_stands_in_the_footer(report):
    footer = (report / "report.md").read_text(encoding="utf-8").split("\n---\n")[1]
    assert "chrf: licence CC BY-NC-SA 4.0, which restricts use." in footer
    assert "bleu: licence" not in footer


def test_the_first_sentence_counts_scored_methods_and_says_how_many_are_not(tmp_path, capsys):
    run = RunFolder(tmp_path / "demo")
    for seed in (1, 2):
        run.done("sft", seed, 0.3)
        run.done("dpo", seed, 0.3)
        for method in ("kto", "orpo"):
            run.entry(method, seed)
    run.done("cpo", 1, 0.3)
    run.entry("cpo", 2)
    assert main([str(run.plan()), "--trials", "100"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "On test (tiny, numbers), no method is shown to be better than sft in bleu; 2 of 2 methods show no "
        "difference; 2 methods have no bleu score yet; 1 method has scores of some seeds only."
    )


def test_where_nothing_is_compared_the_sentence_says_what_has_no_scores(tmp_path, capsys):
    run = RunFolder(tmp_path / "demo")
    run.done("sft", 1, 0.3)
    run.entry("dpo", 1)
    assert main([str(run.plan()), "--trials", "100"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.endswith("no scored method beside a scored sft; 1 method has no bleu score yet.")
