"""A generated cell to score, for the tests of scoring."""

import json

from test_metrics_known_values import REFERENCES, SOURCES, SYSTEMS

from eval.records import Generation, Output, write_generations

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
