"""Prepare a task's data for a model: check every row, write each prompt once, store token ids.

    python -m experiments.prepare runs/NAME/data/FOLDER

Reads   FOLDER/unit.json and the data that it names
Writes  FOLDER/tokenizer/, sft.jsonl, train.jsonl (for training) or rows.jsonl (a test set); last prepare.json
        the weights of a model on a hub go into its cache, so that later stages need no network
        on stderr, a line for each split: how many rows there are, and what was left out
Exit    0 done or already done, 65 bad data (every bad row is listed with file and line) or no unit.json
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.atomic import read_json, write_json, write_text
from experiments.data_columns import Row, source_form
from experiments.data_rows import (
    encode_settings,
    encoded_rows,
    prompt_of,
    texts_of,
    tokens_of,
    with_pairs,
    with_prompt_ids,
)
from experiments.hub import fetch_weights
from experiments.sources import load_rows
from experiments.tokenizing import load_saved, make_tokenizer, prompt_ids
from experiments.unit_command import run_on_folder
from po.data.forms import Text
from po.data.screen import counts_in_words
from po.data.settings import EncodeSettings
from po.data.truncate import truncate_prompt

_KINDS = {"paired": "pairs", "unpaired": "unpaired", "ranked": "ranked", "supervised": "sft"}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    return run_on_folder(argv, prog="python -m experiments.prepare", text=__doc__ or "", work=_prepare)


def _prepare(folder: Path, unit: Mapping[str, Any]) -> None:
    (prepare_corpus if unit["kind"] == "corpus" else prepare_test)(folder, unit)


def prepare_corpus(folder: Path, unit: Mapping[str, Any]) -> None:
    """Training splits and the tokenizer.

    Raises:
        ValueError: bad rows, or none that can be learned from.
    """
    if _done(folder, unit):
        return
    fetch_weights(unit["model"])  # first: what asks the hub below then finds all of it here
    rendering = unit["rendering"]
    settings = encode_settings(rendering, unit["model"])
    loaded, unused = {}, {}
    for split, source in unit["splits"].items():
        rows = load_rows(source, _kind(split, source), settings.empty)
        # fine-tuning imitates the best of a ranking once, however many pairs it gives
        loaded[split], unused[split] = (rows, {}) if split == "sft" else with_pairs(rows, source)
    prompts = {split: [prompt_of(row, rendering) for row in rows] for split, rows in loaded.items()}
    texts = (
        text
        for split, rows in loaded.items()
        for row, prompt in zip(rows, prompts[split], strict=True)
        for text in texts_of(prompt, row, split)
    )
    tokenizer = make_tokenizer(unit["model"], texts, rendering["chat_template"])
    tokenizer.save_pretrained(folder / "tokenizer")
    counts = {}
    for split, rows in loaded.items():
        encoded, found = encoded_rows(rows, prompts[split], tokenizer, settings, split)
        counts[split] = found | unused[split]
        sys.stderr.write(f"{split}: {counts_in_words(counts[split])}\n")
        if not encoded:
            raise ValueError(_nothing_left(split, len(rows), counts[split], settings))
        _write_rows(folder / f"{split}.jsonl", encoded)
    facts = {"schema": 1, "hash": unit["hash"], "splits": counts, "vocab_size": len(tokenizer)}
    write_json(folder / "prepare.json", facts)


def _nothing_left(split: str, rows: int, counts: Mapping[str, int], settings: EncodeSettings) -> str:
    if counts["dropped_long_prompt"] + counts["dropped_long_completion"] == rows and rows:
        limits = f"max_prompt_length {settings.max_prompt_length} or max_completion_length"
        lengths = f"{limits} {settings.max_completion_length}"
        return f"all {rows} rows of split '{split}' are longer than {lengths}; raise them"
    found = counts_in_words(counts)
    return f"no row of split '{split}' can be learned from: {found}; look at its columns and choices"


def prepare_test(folder: Path, unit: Mapping[str, Any]) -> None:
    """A test set, and how many of its sources stand in the training data.

    Raises:
        ValueError: bad rows, or a prompt over the length limit where prompts are not cut.
    """
    if _done(folder, unit):
        return
    corpus = folder.parents[1] / unit["corpus"]
    above = read_json(corpus / "unit.json")
    rendering = above["rendering"]
    settings = encode_settings(rendering, above["model"])
    tokenizer, rows = load_saved(corpus / "tokenizer"), load_rows(unit["source"], "test")
    encoded = [_asked(row, prompt_of(row, rendering), tokenizer, settings) for row in rows]
    longest = max(encoded, key=lambda row: len(row["prompt_ids"]))
    tokens, limit = len(longest["prompt_ids"]), rendering["max_prompt_length"]
    if tokens > limit:
        found = f"the prompt of row '{longest['id']}' of '{unit['test']}' has {tokens} tokens"
        raise ValueError(f"{found}; raise max_prompt_length (now {limit}) to at least that")
    _write_rows(folder / "rows.jsonl", encoded)
    facts = {"rows": len(encoded), "prompt_tokens": tokens_of(encoded, "prompt_ids")}
    if cut := sum("prompt_truncated" in row for row in encoded):
        facts["truncated_prompt"] = cut
    overlap = {"overlap": _overlap(encoded, corpus)}
    write_json(folder / "prepare.json", {"schema": 1, "hash": unit["hash"], **facts, **overlap})


def _asked(row: Row, prompt: Text, tokenizer: Any, settings: EncodeSettings) -> Row:
    """A test row; its prompt is cut where those of training are, and never dropped."""
    ids = prompt_ids(tokenizer, prompt, encoder_decoder=settings.encoder_decoder)
    if settings.over_long != "truncate":
        return with_prompt_ids(row, prompt, tokenizer, ids)
    end = tokenizer.eos_token_id if settings.encoder_decoder else None
    kept = truncate_prompt(
        ids,
        settings.max_prompt_length,
        settings.truncation,
        bos_token_id=tokenizer.bos_token_id,
        end_token_id=end,
    )
    flag = {"prompt_truncated": True} if len(kept) < len(ids) else {}
    return with_prompt_ids(row, prompt, tokenizer, kept) | flag


def _done(folder: Path, unit: Mapping[str, Any]) -> bool:
    path = folder / "prepare.json"
    return path.is_file() and read_json(path)["hash"] == unit["hash"]


def _kind(split: str, source: Mapping[str, Any]) -> str:
    """What the rows of a training split must have; all forms serve fine-tuning too, by the best they have."""
    form = source_form(source)
    return _KINDS[form] if form else "prompts" if split == "train" else "sft"


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
