"""Prepare a task's data for a model: check every row, write each prompt once, store token ids.

    python -m experiments.prepare runs/NAME/data/FOLDER

Reads   FOLDER/unit.json and the data that it names
Writes  FOLDER/tokenizer/, sft.jsonl, train.jsonl (for training) or rows.jsonl (a test set); last prepare.json
Exit    0 done or already done, 65 bad data (every bad row is listed with file and line)
"""

import argparse
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.atomic import read_json, write_json, write_text
from experiments.prompts import render
from experiments.sources import Row, load_rows
from experiments.tokenizing import completion_ids, ids_hash, load_saved, make_tokenizer, prompt_ids

BAD_DATA = 65
_KEPT = ("id", "source", "references", "chosen_score", "rejected_score", "category")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder.resolve()
    try:
        unit = read_json(folder / "unit.json")
        (prepare_corpus if unit["kind"] == "corpus" else prepare_test)(folder, unit)
    except (ValueError, FileNotFoundError) as error:
        traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 the command's own message
        return BAD_DATA
    return 0


def prepare_corpus(folder: Path, unit: Mapping[str, Any]) -> None:
    """Training splits and the tokenizer.

    Raises:
        ValueError: bad rows, or none that fits the length limits.
    """
    if _done(folder, unit):
        return
    rendering = unit["rendering"]
    loaded = {split: load_rows(source, _kind(split, source)) for split, source in unit["splits"].items()}
    prompts = {split: [prompt_of(row, rendering) for row in rows] for split, rows in loaded.items()}
    texts = (
        text
        for split, rows in loaded.items()
        for row, prompt in zip(rows, prompts[split], strict=True)
        for text in (prompt, *_answers(row).values())
    )
    tokenizer = make_tokenizer(unit["model"], texts, rendering["chat_template"])
    tokenizer.save_pretrained(folder / "tokenizer")
    counts = {}
    for split, rows in loaded.items():
        encoded, counts[split] = _within(rows, prompts[split], tokenizer, rendering)
        if not encoded:
            limits = f"max_prompt_length {rendering['max_prompt_length']} or max_completion_length"
            lengths = f"{limits} {rendering['max_completion_length']}"
            raise ValueError(f"all {len(rows)} rows of split '{split}' are longer than {lengths}; raise them")
        _write_rows(folder / f"{split}.jsonl", encoded)
    facts = {"schema": 1, "hash": unit["hash"], "splits": counts, "vocab_size": len(tokenizer)}
    write_json(folder / "prepare.json", facts)


def prepare_test(folder: Path, unit: Mapping[str, Any]) -> None:
    """A test set, and how many of its sources stand in the training data.

    Raises:
        ValueError: bad rows, or a prompt over the length limit.
    """
    if _done(folder, unit):
        return
    corpus = folder.parents[1] / unit["corpus"]
    rendering = read_json(corpus / "unit.json")["rendering"]
    tokenizer, rows = load_saved(corpus / "tokenizer"), load_rows(unit["source"], "test")
    encoded = []
    for row in rows:
        prompt = prompt_of(row, rendering)
        encoded.append(_encoded(row, prompt, prompt_ids(tokenizer, prompt)))
    longest = max(encoded, key=lambda row: len(row["prompt_ids"]))
    tokens, limit = len(longest["prompt_ids"]), rendering["max_prompt_length"]
    if tokens > limit:
        found = f"the prompt of row '{longest['id']}' of '{unit['test']}' has {tokens} tokens"
        raise ValueError(f"{found}; raise max_prompt_length (now {limit}) to at least that")
    _write_rows(folder / "rows.jsonl", encoded)
    facts = {"rows": len(encoded), "prompt_tokens": _tokens(encoded, "prompt_ids")}
    overlap = {"overlap": _overlap(encoded, corpus)}
    write_json(folder / "prepare.json", {"schema": 1, "hash": unit["hash"], **facts, **overlap})


def prompt_of(row: Row, rendering: Mapping[str, Any]) -> str:
    """The prompt that a row brings, or the template filled with it."""
    if row.get("prompt"):
        return str(row["prompt"])
    return render(rendering["prompt"], row, rendering["source_lang"], rendering["target_lang"])


def _done(folder: Path, unit: Mapping[str, Any]) -> bool:
    path = folder / "prepare.json"
    return path.is_file() and read_json(path)["hash"] == unit["hash"]


def _kind(split: str, source: Mapping[str, Any]) -> str:
    """What the rows of a training split must have; pairs serve both, their chosen sides for fine-tuning."""
    if "chosen" in source.get("columns", {}):
        return "pairs"
    return "prompts" if split == "train" else "sft"


def _answers(row: Row) -> dict[str, str]:
    """The answers to learn from, by the key of their token ids."""
    answers = {f"{side}_ids": row[side] for side in ("chosen", "rejected") if side in row}
    texts = [*row.get("references", ()), *(row[side] for side in ("chosen",) if side in row)]
    return answers | ({"completion_ids": texts[0]} if texts else {})


def _encoded(row: Row, prompt: str, ids: list[int]) -> Row:
    kept = {name: row[name] for name in _KEPT if name in row}
    texts = {"source": row.get("source", prompt), "references": row.get("references", []), "prompt": prompt}
    return kept | texts | {"prompt_ids": ids, "prompt_hash": ids_hash(ids)}


def _within(
    rows: list[Row], prompts: list[str], tokenizer: Any, rendering: Mapping[str, Any]
) -> tuple[list[Row], dict[str, int]]:
    """Rows with token ids, and counts; rows over a length limit are left out and counted."""
    kept = []
    counts = {"dropped_long_prompt": 0, "dropped_long_completion": 0}
    for row, prompt in zip(rows, prompts, strict=True):
        encoded, answers = _encoded(row, prompt, prompt_ids(tokenizer, prompt)), _answers(row)
        encoded |= {key: completion_ids(tokenizer, prompt, text) for key, text in answers.items()}
        encoded |= {side: row[side] for side in ("chosen", "rejected") if side in row}
        if len(encoded["prompt_ids"]) > rendering["max_prompt_length"]:
            counts["dropped_long_prompt"] += 1
        elif any(len(encoded[key]) > rendering["max_completion_length"] for key in answers):
            counts["dropped_long_completion"] += 1
        else:
            kept.append(encoded)
    tokens = {f"{part}_tokens": _tokens(kept, f"{part}_ids") for part in ("prompt", "completion")}
    return kept, {"rows": len(kept), **counts, **tokens}


def _tokens(rows: list[Row], key: str) -> int:
    return sum(len(row.get(key, ())) for row in rows)


def _overlap(rows: list[Row], corpus: Path) -> dict[str, int]:
    """Per training split: how many test sources occur in it, but for case and blanks."""
    sources = [_folded(row["source"]) for row in rows]
    counts = {}
    for split in ("sft", "train"):
        known = {_folded(row["source"]) for row in read_jsonl(corpus / f"{split}.jsonl")}
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
