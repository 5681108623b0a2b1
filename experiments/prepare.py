"""Prepare a task's data for a model: check every row, write each prompt once, store token ids.

    python -m experiments.prepare runs/NAME/data/FOLDER

Reads   FOLDER/unit.json and the data that it names
Writes  FOLDER/tokenizer/, sft.jsonl, train.jsonl, dev.jsonl (training data) or rows.jsonl (a test set); prepare.json, last
Exit    0 done or already done, 65 bad data (every bad row is listed with file and line)
"""

import argparse
import json
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.atomic import read_json, write_json, write_text
from experiments.prompts import render
from experiments.sources import Row, load_rows
from experiments.tokenizing import completion_ids, ids_hash, load_saved, make_tokenizer, prompt_ids

BAD_DATA = 65


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder.resolve()
    unit = read_json(folder / "unit.json")
    try:
        (prepare_corpus if unit["kind"] == "corpus" else prepare_test)(folder, unit)
    except (ValueError, FileNotFoundError) as error:
        traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 the command's own message
        return BAD_DATA
    return 0


def prepare_corpus(folder: Path, unit: dict[str, Any]) -> None:
    """Training splits and the tokenizer."""
    if _done(folder, unit):
        return
    rendering, splits = unit["rendering"], unit["splits"]
    kinds = {split: "pairs" if split == "train" and _has_pairs(source) else "prompts" if split == "train" else "sft" for split, source in splits.items()}
    loaded = {split: load_rows(source, kinds[split]) for split, source in splits.items()}
    prompts = {split: [prompt_of(row, rendering) for row in rows] for split, rows in loaded.items()}
    texts = (text for split in ("sft", "train") for row, prompt in zip(loaded[split], prompts[split], strict=True) for text in _texts(row, prompt))
    tokenizer = make_tokenizer(unit["model"], texts, rendering["chat_template"])
    tokenizer.save_pretrained(folder / "tokenizer")
    counts = {}
    for split, rows in loaded.items():
        encoded, dropped = _within(rows, prompts[split], tokenizer, rendering)
        counts[split] = {"rows": len(encoded), **dropped}
        _write_rows(folder / f"{split}.jsonl", encoded)
    write_json(folder / "prepare.json", {"schema": 1, "hash": unit["hash"], "splits": counts, "vocab_size": len(tokenizer)})


def prepare_test(folder: Path, unit: dict[str, Any]) -> None:
    """A test set, and how many of its sources stand in the training data."""
    if _done(folder, unit):
        return
    corpus = folder.parents[1] / unit["corpus"]
    rendering = read_json(corpus / "unit.json")["rendering"]
    tokenizer, rows = load_saved(corpus / "tokenizer"), load_rows(unit["source"], "test")
    encoded = []
    for row in rows:
        prompt = prompt_of(row, rendering)
        encoded.append(_encoded(row, prompt, prompt_ids(tokenizer, prompt)))
    longest = max(len(row["prompt_ids"]) for row in encoded)
    if longest > rendering["max_prompt_length"]:
        raise ValueError(f"a prompt of '{unit['test']}' has {longest} tokens; raise max_prompt_length (now {rendering['max_prompt_length']}) to at least that")
    _write_rows(folder / "rows.jsonl", encoded)
    facts = {"schema": 1, "hash": unit["hash"], "rows": len(encoded), "overlap": _overlap(encoded, corpus)}
    write_json(folder / "prepare.json", facts)


def prompt_of(row: Row, rendering: dict[str, Any]) -> str:
    """The prompt that a row brings, or the template filled with it."""
    if row.get("prompt"):
        return str(row["prompt"])
    return render(rendering["prompt"], row, rendering["source_lang"], rendering["target_lang"])


def _done(folder: Path, unit: dict[str, Any]) -> bool:
    path = folder / "prepare.json"
    return path.is_file() and read_json(path)["hash"] == unit["hash"]


def _has_pairs(source: dict[str, Any]) -> bool:
    return "chosen" in source.get("columns", {})


def _texts(row: Row, prompt: str) -> list[str]:
    return [prompt, *row.get("references", ()), *(row[name] for name in ("chosen", "rejected") if name in row)]


def _encoded(row: Row, prompt: str, ids: list[int]) -> Row:
    row = {"source": prompt, **row}
    kept = {name: row[name] for name in ("id", "source", "references", "chosen_score", "rejected_score", "category") if name in row}
    return kept | {"references": kept.get("references", []), "prompt": prompt, "prompt_ids": ids, "prompt_hash": ids_hash(ids)}


def _within(rows: list[Row], prompts: list[str], tokenizer: Any, rendering: dict[str, Any]) -> tuple[list[Row], dict[str, int]]:
    """Rows with token ids; those over a length limit are left out and counted."""
    kept, dropped = [], Counter({"dropped_long_prompt": 0, "dropped_long_completion": 0})
    for row, prompt in zip(rows, prompts, strict=True):
        encoded = _encoded(row, prompt, prompt_ids(tokenizer, prompt))
        answers = {f"{side}_ids": row[side] for side in ("chosen", "rejected") if side in row}
        if row.get("references"):
            answers["completion_ids"] = row["references"][0]
        encoded |= {key: completion_ids(tokenizer, prompt, text) for key, text in answers.items()}
        encoded |= {side: row[side] for side in ("chosen", "rejected") if side in row}
        if len(encoded["prompt_ids"]) > rendering["max_prompt_length"]:
            dropped["dropped_long_prompt"] += 1
        elif any(len(encoded[key]) > rendering["max_completion_length"] for key in answers):
            dropped["dropped_long_completion"] += 1
        else:
            kept.append(encoded)
    return kept, dict(dropped)


def _overlap(rows: list[Row], corpus: Path) -> dict[str, int]:
    """Per training split: how many test sources occur in it, but for case and blanks."""
    sources = [_folded(row["source"]) for row in rows if "source" in row]
    counts = {}
    for split in ("sft", "train", "dev"):
        path = corpus / f"{split}.jsonl"
        if path.is_file():
            known = {_folded(row["source"]) for row in read_jsonl(path) if "source" in row}
            counts[split] = sum(source in known for source in sources)
    return counts


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def read_jsonl(path: Path) -> list[Row]:
    """Rows of a file that a stage has written."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _write_rows(path: Path, rows: list[Row]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
