"""What scoring leaves in a run's folder, what it keeps, and what it refuses."""

import json
import logging
import multiprocessing
import os

import pandas as pd
import pytest
from test_metrics_known_values import REFERENCES, SOURCES, SYSTEMS

from eval.metrics import METRICS, Example, SegmentScore, Signatures
from eval.metrics.overlap import ChrF
from eval.records import Generation, Output, RecordError, read_generations, read_rows, write_generations
from eval.score import main
from eval.segment_cache import SegmentCache, segment_key

LENGTHS = {"hyp_chars", "hyp_words", "ref_chars", "ref_words", "hyp_tokens"}


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def make_run(
    root, texts=SYSTEMS["A"], *, name="a", metrics=("bleu", "chrf"), references=REFERENCES, finish="stop"
):
    """An experiment with one generated cell; the folder of the cell and that of its generations."""
    cell = root / "cells" / f"{name}--0123456789"
    rows = [
        {
            "id": f"t{i}",
            "source": src,
            "references": [ref],
            "prompt": src,
            "prompt_ids": [1, i + 2],
            "prompt_hash": f"h{i}",
        }
        for i, (src, ref) in enumerate(zip(SOURCES, references, strict=True))
    ]
    write_lines(root / "data" / "test--aa" / "rows.jsonl", rows)
    test = {"data": "data/test--aa", "hash": "ab" * 32, "folder": "generate/test--abababab"}
    document = {
        "schema": 1,
        "name": name,
        "task": {"type": "translation", "source_lang": "en", "target_lang": "de"},
        "generation": {"backend": "transformers", "max_new_tokens": 8},
        "tests": {"test": test},
        "metrics": list(metrics),
    }
    folder = cell / test["folder"]
    folder.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps(document))
    (folder / "generation.json").write_text(json.dumps({"schema": 1, "complete": True}))
    outputs = [Generation(f"t{i}", f"h{i}", (Output(text, 3, finish),)) for i, text in enumerate(texts)]
    write_generations(folder / "generations.jsonl", reversed(outputs))
    return cell, folder


def scores_of(folder):
    return {entry["metric"]: entry for entry in json.loads((folder / "scores.json").read_text())["scores"]}


@pytest.fixture
def counted(monkeypatch):
    """How many segments each metric has really scored."""
    calls = dict.fromkeys(METRICS, 0)
    for name, metric in METRICS.items():
        original = metric.score_segments

        def score_segments(examples, lang=None, *, _name=name, _original=original):
            calls[_name] += len(examples)
            return _original(examples, lang)

        monkeypatch.setattr(metric, "score_segments", score_segments)
    return calls


def test_scores_are_keyed_by_id_and_describe_themselves(tmp_path, capsys):
    cell, folder = make_run(tmp_path)
    assert main([str(cell)]) == 0
    assert capsys.readouterr().out == f"{folder / 'scores.json'}\n"
    document = json.loads((folder / "scores.json").read_text())
    entry = scores_of(folder)["chrf"]
    assert entry["score"] == pytest.approx(83.836826, abs=1e-6)
    assert entry["aggregation"] == {"kind": "chrf", "char_order": 6, "word_order": 0, "beta": 2}
    assert (entry["direction"], entry["unit"], entry["n"]) == ("higher", "points, 0-100", 6)
    assert (document["schema"], document["n_segments"]) == (1, 6)
    assert {d["name"]: d["value"] for d in document["diagnostics"]}["length_ratio"] == pytest.approx(1.036)
    frame = pd.read_parquet(folder / "segments.parquet")
    assert list(frame.columns) == ["id", "metric", "score", "stats"]
    chrf = frame[frame["metric"] == "chrf"].set_index("id")
    assert chrf.loc["t1", "score"] == pytest.approx(85.121122, abs=1e-6)
    assert list(chrf.loc["t1", "stats"])[:3] == [42, 36, 36]
    assert LENGTHS | {"seq_rep_4", "copy_exact"} <= set(frame["metric"])
    assert set(frame.groupby("metric")["id"].nunique()) == {6}


def test_a_folder_that_is_scored_is_left_alone(tmp_path, counted):
    cell, folder = make_run(tmp_path)
    assert main([str(cell)]) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main([str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert counted == {"bleu": 6, "chrf": 6, "chrf++": 0}


def test_adding_a_metric_computes_only_that_one_and_keeps_the_rest(tmp_path, counted):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    before = scores_of(folder)
    assert main([str(cell), "--metrics", "chrf++"]) == 0
    assert counted == {"bleu": 6, "chrf": 6, "chrf++": 6}
    after = scores_of(folder)
    assert {name: after[name] for name in before} == before
    assert after["chrf++"]["score"] == pytest.approx(82.799471, abs=1e-6)
    assert set(pd.read_parquet(folder / "segments.parquet")["metric"]) >= {"bleu", "chrf", "chrf++"}


def test_other_generations_make_all_scores_void(tmp_path):
    cell, folder = make_run(tmp_path)
    main([str(cell), "--metrics", "bleu,chrf"])
    texts = [Generation(f"t{i}", f"h{i}", (Output(text, 3, "stop"),)) for i, text in enumerate(SYSTEMS["B"])]
    write_generations(folder / "generations.jsonl", texts)
    assert main([str(cell), "--metrics", "chrf"]) == 0
    assert {name: entry["score"] for name, entry in scores_of(folder).items()} == {
        "chrf": pytest.approx(41.387247)
    }


def test_a_score_of_another_version_is_dropped_with_a_word(tmp_path, caplog, monkeypatch):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    newer = Signatures("nrefs:1|version:9", "nrefs:1|version:9")
    monkeypatch.setattr(METRICS["bleu"], "signatures", lambda examples, lang=None: newer)
    with caplog.at_level(logging.WARNING):
        assert main([str(cell), "--metrics", "chrf"]) == 0
    assert "bleu: its stored score was made with nrefs:1|case:mixed" in caplog.text
    assert set(scores_of(folder)) == {"chrf"}


def test_a_changed_score_file_is_not_believed(tmp_path):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    path = folder / "scores.json"
    path.write_text(path.read_text().replace("version:2.6.0", "version:2.5.9"))
    assert main([str(cell), "--metrics", "chrf"]) == 0
    assert set(scores_of(folder)) == {"chrf"}
    assert "2.6.0" in scores_of(folder)["chrf"]["signature"]


def test_scores_and_segments_of_different_scorings_are_not_mixed(tmp_path):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    (folder / "segments.parquet").write_bytes(b"PAR1 half a file")
    assert main([str(cell), "--metrics", "chrf"]) == 0
    assert set(scores_of(folder)) == {"chrf"}
    assert len(pd.read_parquet(folder / "segments.parquet").query("metric == 'chrf'")) == 6


def test_recompute_scores_again_without_the_cache(tmp_path, counted):
    cell, _ = make_run(tmp_path)
    main([str(cell)])
    assert main([str(cell), "--metrics", "chrf", "--recompute"]) == 0
    assert counted["chrf"] == 12


def test_the_same_output_in_another_cell_comes_from_the_cache(tmp_path, counted):
    make_run(tmp_path, name="a")
    _, folder = make_run(tmp_path, (*SYSTEMS["A"][:5], "Thank you!"), name="b")
    assert main([str(tmp_path)]) == 0
    assert counted["chrf"] == 7
    assert scores_of(folder)["chrf"]["cached"] == 5
    direct = METRICS["chrf"].score(
        [
            Example(str(i), h, (r,))
            for i, (h, r) in enumerate(zip((*SYSTEMS["A"][:5], "Thank you!"), REFERENCES, strict=True))
        ]
    )
    assert scores_of(folder)["chrf"]["score"] == direct.corpus


def test_a_broken_shard_of_the_cache_costs_one_line(tmp_path, caplog, counted):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    shards = sorted((tmp_path / "cache").glob("*/*.parquet"))
    assert len(shards) == 2
    for shard in shards:
        shard.write_bytes(b"PAR1 torn")
    (folder / "scores.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert main([str(cell)]) == 0
    assert [str(s) in caplog.text for s in shards] == [True, True]
    assert counted["chrf"] == 12


def _write_many(folder, writer):
    cache = SegmentCache(folder)
    for step in range(5):
        example = Example("0", f"{writer} {step}", ("ref",))
        cache.add("sig", {segment_key("sig", example): SegmentScore(float(step), (1.0, float(writer)))})


def test_two_writers_of_the_cache_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, writer)) for writer in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    known = SegmentCache(tmp_path).known("sig")
    assert len(known) == 10
    assert known[segment_key("sig", Example("9", "1 4", ("ref",)))] == SegmentScore(4.0, (1.0, 1.0))
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_the_key_of_the_cache_holds_everything_that_is_scored():
    base = Example("0", "hyp", ("ref",), "src")
    others = [
        Example("0", "hyq", ("ref",), "src"),
        Example("0", "hyp", ("reg",), "src"),
        Example("0", "hyp", ("ref", None), "src"),
        Example("0", "hyp", ("ref",), "srd"),
        Example("0", "hyp", ("ref",)),
    ]
    keys = {segment_key("sig", example) for example in (base, *others)} | {segment_key("sig2", base)}
    assert len(keys) == 7
    assert segment_key("sig", Example("other id", "hyp", ("ref",), "src")) == segment_key("sig", base)


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


def test_one_bad_run_does_not_cost_the_others_their_scores(tmp_path, capsys):
    make_run(tmp_path, name="a")
    _, broken = make_run(tmp_path, name="b")
    _, good = make_run(tmp_path, name="c")
    (broken / "generations.jsonl").write_text("{}\n")
    assert main([str(tmp_path)]) == 1
    assert "'id' is missing" in capsys.readouterr().err
    assert scores_of(good)["chrf"]["score"] == pytest.approx(83.836826, abs=1e-6)


def test_a_metric_that_cannot_run_does_not_cost_the_others(tmp_path, capsys, monkeypatch):
    cell, folder = make_run(tmp_path)
    monkeypatch.setattr(
        METRICS["bleu"],
        "score_segments",
        lambda examples, lang=None: [SegmentScore(float("nan"), (0,) * 10)] * 6,
    )
    assert main([str(cell)]) == 1
    assert "bleu: segment 't0' got nan" in capsys.readouterr().err
    assert set(scores_of(folder)) == {"chrf"}


def test_cells_without_generations_are_passed_over_in_an_experiment_and_a_fault_alone(tmp_path, capsys):
    cell, folder = make_run(tmp_path)
    (folder / "generations.jsonl").unlink()
    assert main([str(tmp_path)]) == 0
    assert "not generated yet" in capsys.readouterr().err
    assert main([str(cell)]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "chfr"], "unknown metric 'chfr'; did you mean 'chrf'?"),
        (["--metrics", ","], "no metric was named"),
        (["--hyp", "x"], "give either runs or --hyp"),
        (["--target-lang", "de"], "--target-lang goes with --hyp"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path, capsys, arguments, message):
    cell, _ = make_run(tmp_path)
    assert main([str(cell), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_exits_with_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is neither a cell (cell.json) nor an experiment" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 2


def test_an_unknown_test_set_is_answered_with_the_nearest_one(tmp_path, capsys):
    cell, _ = make_run(tmp_path)
    assert main([str(cell), "--test", "tset"]) == 1
    assert "did you mean 'test'" in capsys.readouterr().err


def test_nfc_is_part_of_the_signature(tmp_path):
    decomposed = [text.replace("ä", "a\u0308") for text in SYSTEMS["A"]]
    cell, folder = make_run(tmp_path, decomposed)
    assert main([str(cell), "--metrics", "chrf"]) == 0
    raw = scores_of(folder)["chrf"]
    assert main([str(cell), "--metrics", "chrf", "--nfc"]) == 0
    found = scores_of(folder)["chrf"]
    assert found["signature"] == raw["signature"] + "|norm:NFC"
    assert raw["score"] < found["score"] == pytest.approx(83.836826, abs=1e-6)


def write_text(path, lines, end="\n"):
    path.write_bytes(end.join([*lines, ""]).encode())
    return str(path)


def test_plain_files_are_scored_without_a_run(tmp_path, capsys):
    hyp = write_text(tmp_path / "hyp", SYSTEMS["A"], end="\r\n")
    src, ref = write_text(tmp_path / "src", SOURCES), write_text(tmp_path / "ref", REFERENCES)
    arguments = ["--hyp", hyp, "--src", src, "--ref", ref, "--target-lang", "de"]
    assert main(arguments) == 0
    assert "bleu" in (table := capsys.readouterr().out) and "71.21" in table and "tok:13a" in table
    second = write_text(
        tmp_path / "ref2", [*REFERENCES[:1], SYSTEMS["A"][1], *REFERENCES[2:5], "Vielen Dank!"]
    )
    assert main([*arguments, "--ref", second, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {s["metric"]: s["score"] for s in document["scores"]}["bleu"] == pytest.approx(82.210289, abs=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"hyp", "src", "ref", "ref2"}


def test_plain_files_of_unequal_length_are_refused_with_their_counts(tmp_path, capsys):
    hyp, ref = write_text(tmp_path / "hyp", ["a", "b\u2028c"]), write_text(tmp_path / "ref", ["a", "b", "c"])
    assert main(["--hyp", hyp, "--ref", ref]) == 1
    assert f"{hyp} has 2, {ref} has 3" in capsys.readouterr().err


def test_plain_files_that_are_not_utf8_are_refused_with_their_line(tmp_path, capsys):
    (tmp_path / "hyp").write_bytes(b"a\n\xed\xa0\x80\n")
    ref = write_text(tmp_path / "ref", ["a", "b"])
    assert main(["--hyp", str(tmp_path / "hyp"), "--ref", ref]) == 1
    assert f"{tmp_path / 'hyp'}:2: not UTF-8" in capsys.readouterr().err


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


def test_a_killed_write_leaves_the_old_file(tmp_path, monkeypatch):
    cell, folder = make_run(tmp_path)
    main([str(cell)])
    before = (folder / "scores.json").read_bytes()

    def killed(source, target):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", killed)
    assert main([str(cell), "--recompute"]) == 1
    assert (folder / "scores.json").read_bytes() == before
    assert [path.name for path in folder.glob(".*")] == []


def test_a_metric_is_scored_alike_with_and_without_a_full_cache(tmp_path):
    """Only some segments are missing: references with gaps must not change the others."""
    examples = [Example("0", "ein Hund", ("ein Hund", None)), Example("1", "zwei", ("drei", "zwei Hunde"))]
    whole = ChrF("chrf", 0).score(examples)
    parts = [ChrF("chrf", 0).score_segments([example])[0] for example in examples]
    assert tuple(parts) == whole.segments
