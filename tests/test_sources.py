"""Rows of a data set: every line is checked, and all bad ones are named at once."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from experiments.sources import DataError, load_rows


def rows_of(path: Path, kind: str = "sft", **more: Any) -> list[dict[str, Any]]:
    source = {"dataset": str(path), "revision": None, "split": None, "columns": {}, "limit": None}
    return load_rows(source | more, kind)


def jsonl(folder: Path, *rows: Any) -> Path:
    """Rows as lines; texts are lines as they are."""
    path = folder / "data.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"source": f"text {number}", "reference": f"Text {number}"} | more


def message(path: Path, kind: str = "sft", **more: Any) -> str:
    with pytest.raises(DataError) as raised:
        rows_of(path, kind, **more)
    return str(raised.value)


def test_rows_get_our_names_and_ids(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(1), "", row(2, id="mine"))
    assert rows_of(path) == [
        {"id": "0", "source": "text 1", "reference": "Text 1", "references": ["Text 1"]},
        {"id": "mine", "source": "text 2", "reference": "Text 2", "references": ["Text 2"]},
    ]


def test_every_bad_line_is_named_with_its_fault(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        row(1),
        "{not json",
        "[1, 2]",
        {"source": "x"},
        {"reference": "x"},
        {"source": " ", "reference": "x"},
        {"source": 3, "reference": "x"},
        {"source": "x", "reference": ["y", 4]},
        row(2, id="same"),
        row(3, id="same"),
        row(4, chosen_score="high"),
        '{"source": "x", "reference": "half of \\ud83d"}',
    )
    found = message(path)
    assert found.startswith(f"{path}: 10 bad rows; mend or remove them, nothing was written\n")
    for line, words in [
        (2, "not JSON in UTF-8, one object a line"),
        (3, "a JSON object was expected, one a line; this is a list"),
        (4, "no text under reference; name its column in 'columns'"),
        (5, "no text under source (or prompt); name its column in 'columns'"),
        (6, "source is empty"),
        (7, "source is a int, not a text"),
        (8, "reference is a list, not a text"),
        (10, f"id 'same' stands at {path}:9 already"),
        (11, "chosen_score = 'high' is no number"),
        (12, "reference holds half of a surrogate pair"),
    ]:
        assert f"\n  {path}:{line}: {words}" in found


def test_only_the_first_twenty_of_many_bad_rows_are_listed(tmp_path: Path) -> None:
    found = message(jsonl(tmp_path, *({"source": f"{i}"} for i in range(25)))).splitlines()
    assert "25 bad rows" in found[0]
    assert len(found) == 1 + 20 + 1
    assert found[-1] == "  ... and 5 more"


def test_columns_are_mapped_and_missing_ones_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"en": "one", "de": "eins", "key": 7})
    columns = {"source": "en", "reference": "de", "id": "key"}
    assert rows_of(path, columns=columns) == [
        {"id": "7", "source": "one", "reference": "eins", "references": ["eins"]}
    ]
    assert (
        "there is no column 'dee' (named for reference); did you mean 'de'? Known: de, en, key."
        in message(path, columns=columns | {"reference": "dee"})
    )


@pytest.mark.parametrize(
    ("source", "reference"),
    [("src", "ref"), ("document", "summary"), ("article", "highlights"), ("dialogue", "summary")],
)
def test_common_names_of_columns_are_known(tmp_path: Path, source: str, reference: str) -> None:
    assert rows_of(jsonl(tmp_path, {source: "long", reference: "short"}))[0]["references"] == ["short"]


def test_several_references_are_kept_without_the_missing_ones(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path, {"source": "a", "references": ["b", None, "c"]}, {"source": "d", "references": "e"}
    )
    assert [found["references"] for found in rows_of(path)] == [["b", "c"], ["e"]]


def test_pairs_need_two_sides(tmp_path: Path) -> None:
    good = {"source": "a", "chosen": "b", "rejected": "c", "chosen_score": 1, "rejected_score": 0.5}
    assert rows_of(jsonl(tmp_path, good), "pairs")[0]["rejected_score"] == 0.5
    # two sides of one text are no fault of the file: they are counted when the rows are prepared
    assert rows_of(jsonl(tmp_path, good | {"rejected": "b"}), "pairs")[0]["rejected"] == "b"
    found = message(jsonl(tmp_path, good | {"rejected": None}, good | {"chosen": ""}), "pairs")
    assert ":1: no text under rejected" in found
    assert ":2: no text under chosen" in found
    alone = message(jsonl(tmp_path, {"chosen": "a b", "rejected": "a c"}), "pairs")
    assert (
        "no text under source (or prompt); name its column in 'columns'; or write adapter: implicit_prompt"
        in alone
    )


def test_answers_without_text_pass_where_they_are_to_be_dropped_later(tmp_path: Path) -> None:
    good = {"source": "a", "chosen": "b", "rejected": "c"}
    path = jsonl(tmp_path, good, good | {"chosen": ""}, good | {"rejected": " "})
    source = {"dataset": str(path), "revision": None, "split": None, "columns": {}, "limit": None}
    assert [found["chosen"] for found in load_rows(source, "pairs", "drop")] == ["b", "", "b"]
    missing = jsonl(tmp_path, good | {"rejected": None})
    with pytest.raises(DataError, match="no text under rejected"):
        load_rows(source | {"dataset": str(missing)}, "pairs", "drop")
    # a question without text is a fault in any case
    blank = jsonl(tmp_path, good | {"source": " "})
    with pytest.raises(DataError, match="source is empty"):
        load_rows(source | {"dataset": str(blank)}, "pairs", "drop")


def test_prompts_need_no_reference(tmp_path: Path) -> None:
    assert rows_of(jsonl(tmp_path, {"source": "a"}, {"prompt": "Say b."}), "prompts") == [
        {"id": "0", "source": "a"},
        {"id": "1", "prompt": "Say b."},
    ]


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(1), row(2), "{broken")
    assert [found["source"] for found in rows_of(path, limit=2)] == ["text 1", "text 2"]
    assert ":3: not JSON" in message(path, limit=3)


def test_line_separators_inside_a_text_do_not_end_a_row(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive"
    path = jsonl(tmp_path, row(1, source=text), row(2))
    assert [found["source"] for found in rows_of(path)] == [text, "text 2"]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(row(1)).encode() + b"\r\n" + json.dumps(row(2)).encode() + b"\r\n"
    )
    assert [found["source"] for found in rows_of(path)] == ["text 1", "text 2"]


def test_bytes_that_are_not_utf_8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(row(1)).encode() + b'\n{"source": "\xe4", "reference": "a"}\n')
    assert f"{path}:2: not JSON in UTF-8" in message(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.csv", ""), ("a.csv", "source,reference\n")],
)
def test_an_empty_data_set_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert message(path).endswith(f"{path}: the data set is empty")


def test_csv_is_read_with_quotes_commas_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('\ufeffid,source,reference\na,"one, two\nthree",eins\nb,four,vier\n', encoding="utf-8")
    assert [(found["id"], found["source"], found["reference"]) for found in rows_of(path)] == [
        ("a", "one, two\nthree", "eins"),
        ("b", "four", "vier"),
    ]


def test_csv_with_a_row_too_short_too_long_or_unclosed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('source,reference\na\nb,c,d\ne,f\n"g,h\n')
    found = message(path)
    assert f"{path}:2: no text under reference" in found
    assert f"{path}:3: more fields than the header has; quote texts that hold commas" in found
    assert ": not CSV in UTF-8 (unexpected end of data)" in found


def test_csv_takes_texts_over_pythons_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"source,reference\n{'x' * 200_000},y\n")
    assert len(rows_of(path)[0]["source"]) == 200_000


def test_parquet_is_read_with_lists_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table = {"source": ["a", "b"], "references": [["x", "y"], ["z"]], "chosen_score": [0.5, None]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    assert rows_of(path) == [
        {"id": "0", "source": "a", "references": ["x", "y"], "chosen_score": 0.5},
        {"id": "1", "source": "b", "references": ["z"]},
    ]
    pyarrow.parquet.write_table(pyarrow.table(table | {"source": ["a", None]}), path)
    assert f"{path}: row 1: no text under source" in message(path)


def test_a_file_that_is_no_parquet_says_so(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_text("source,reference\n")
    assert f"{path}: not a Parquet file" in message(path)


def test_a_generated_split_has_the_size_that_was_asked_for() -> None:
    source = {"generator": "numbers", "seed": 5, "split": "dev", "size": 6}
    found = load_rows(source, "test")
    assert len(found) == 6
    assert all(one["references"] == [one["reference"]] for one in found)
    assert load_rows(source, "test") == found
    assert load_rows(source | {"seed": 6}, "test") != found


def test_a_folder_that_datasets_has_saved_is_read(tmp_path: Path) -> None:
    data = Dataset.from_list([row(1), row(2)])
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"train": data, "dev": data.select([1])}).save_to_disk(tmp_path / "splits")
    assert [found["source"] for found in rows_of(tmp_path / "one")] == ["text 1", "text 2"]
    assert [found["source"] for found in rows_of(tmp_path / "splits")] == ["text 1", "text 2"]
    assert [found["source"] for found in rows_of(tmp_path / "splits", split="dev")] == ["text 2"]
    assert f"{tmp_path}/splits: row 0: no text under chosen" in message(
        tmp_path / "splits", "pairs", split="dev"
    )


def test_a_folder_of_data_files_is_read_as_an_id_on_a_hub_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(row(1)) + "\n")
    (folder / "test.jsonl").write_text(json.dumps(row(2)) + "\n")
    assert [found["source"] for found in rows_of(folder)] == ["text 1"]
    assert [found["source"] for found in rows_of(folder, split="test", subset="default")] == ["text 2"]
