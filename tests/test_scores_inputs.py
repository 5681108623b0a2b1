"""What scoring refuses, counts or takes as it stands."""

import json
import logging

import pytest
from scored_run import make_run, scores_of, write_lines
from test_metrics_known_values import REFERENCES, SYSTEMS

from eval.metrics import METRICS, Example
from eval.records import Generation, Output, RecordError, read_generations, read_rows, write_generations
from eval.score import main


def test_odd_inputs_are_counted_and_empty_outputs_scored_as_they_stand(tmp_path):
    texts = ("", "a\nb", "a\u2028b", "a\0b", "c", "d")
    cell, folder = make_run(tmp_path, texts, finish="length")
    assert main([str(cell)]) == 0
    counts = json.loads((folder / "scores.json").read_text())["counts"]
    assert counts == {
        "empty": 1,
        "truncated": 6,
        "newline": 1,
        "line_separator": 1,
        "nul": 1,
        "empty_source": 0,
    }
    chrf = scores_of(folder)["chrf"]
    alone = METRICS["chrf"].score([Example(str(i), h, (REFERENCES[i],)) for i, h in enumerate(texts) if h])
    assert chrf["score_without_empty"] == alone.corpus
    assert chrf["score"] < chrf["score_without_empty"]


def test_texts_with_line_separators_and_nul_come_back_as_written(tmp_path):
    texts = ("a\u2028b", "a\u0085b\x0b\x1c", "a\0b", "a\r\nb")
    path = tmp_path / "generations.jsonl"
    write_generations(path, [Generation(str(i), "h", (Output(t, 1, "stop"),)) for i, t in enumerate(texts)])
    assert [g.outputs[0].text for g in read_generations(path)] == list(texts)


def test_lone_surrogates_are_refused_with_file_and_line(tmp_path, capsys):
    cell, folder = make_run(tmp_path)
    path = folder / "generations.jsonl"
    lines = path.read_text().split("\n")
    lines[2] = lines[2].replace('"text": "', '"text": "\\ud83d')
    path.write_text("\n".join(lines))
    assert main([str(cell)]) == 1
    assert f"{path}:3: holds a lone surrogate" in capsys.readouterr().err
    assert not (folder / "scores.json").exists()
    lines[2] = lines[2].replace("\\ud83d", "\\ud83d\\ude00")  # a whole pair is a character
    path.write_text("\n".join(lines))
    assert main([str(cell)]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "1 segments of the test set have no output: 't5'"),
        (
            lambda lines: [*lines, lines[0].replace('"t5"', '"t6"')],
            "1 outputs belong to no segment of the test set: 't6'",
        ),
        (lambda lines: [lines[0].replace('"h5"', '"h9"'), *lines[1:]], "1 outputs answer another prompt"),
        (
            lambda lines: [
                lines[0].replace("Vielen Dank!", "").replace('"text": ""', '"text": null'),
                *lines[1:],
            ],
            "'text' should be str",
        ),
        (lambda lines: [*lines, lines[0]], "ids must be unique"),
        (lambda lines: [lines[0][:-5], *lines[1:]], "generations.jsonl:1: not a JSON object"),
        (
            lambda lines: [lines[0].replace("[{", "[").replace("}]", "]"), *lines[1:]],
            "generations.jsonl:1: not a JSON object",
        ),
        (lambda lines: [lines[0].replace('"stop"', '"eos"'), *lines[1:]], "'eos' is none of stop, length"),
    ],
)
def test_generations_that_do_not_fit_the_test_set_are_refused_before_scoring(
    tmp_path, capsys, counted, change, message
):
    cell, folder = make_run(tmp_path)
    path = folder / "generations.jsonl"
    path.write_text("\n".join(change(path.read_text().rstrip("\n").split("\n"))) + "\n")
    assert main([str(cell)]) == 1
    assert message in capsys.readouterr().err
    assert sum(counted.values()) == 0
    assert not (folder / "scores.json").exists()


def test_incomplete_generations_are_not_scored(tmp_path, capsys):
    cell, folder = make_run(tmp_path)
    (folder / "generation.json").write_text(json.dumps({"schema": 1, "complete": False}))
    assert main([str(cell)]) == 1
    assert "not complete; run 'python -m eval.generate" in capsys.readouterr().err


def test_an_empty_reference_is_a_fault_of_the_test_set_or_leaves_the_metrics_out(tmp_path, capsys, caplog):
    cell, folder = make_run(tmp_path, references=(*REFERENCES[:5], "  "))
    assert main([str(cell)]) == 1
    assert "1 segments without a reference or with an empty one: 't5'" in capsys.readouterr().err
    with caplog.at_level(logging.WARNING):
        assert main([str(cell), "--empty-references", "skip"]) == 0
    assert "left out: bleu, chrf" in caplog.text
    assert scores_of(folder) == {}


def test_prepared_rows_are_checked_with_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"id": "a", "source": "s", "references": ["r", None], "prompt_ids": [1], "prompt_hash": "h"}
    write_lines(path, [good])
    assert read_rows(path)[0].references == ("r", None)
    for key, value in (
        ("prompt_ids", []),
        ("prompt_ids", [1.5]),
        ("references", [1]),
        ("source", None),
        ("id", 3),
    ):
        write_lines(path, [good, {**good, "id": "b", key: value}])
        with pytest.raises(RecordError, match=f"rows.jsonl:2: '{key}'"):
            read_rows(path)


def test_nfc_is_part_of_the_signature(tmp_path):
    decomposed = [text.replace("ä", "a\u0308") for text in SYSTEMS["A"]]
    cell, folder = make_run(tmp_path, decomposed)
    assert main([str(cell), "--metrics", "chrf"]) == 0
    raw = scores_of(folder)["chrf"]
    assert main([str(cell), "--metrics", "chrf", "--nfc"]) == 0
    found = scores_of(folder)["chrf"]
    assert found["signature"] == raw["signature"] + "|norm:NFC"
    assert raw["score"] < found["score"] == pytest.approx(83.836826, abs=1e-6)
