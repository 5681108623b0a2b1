"""Canonical forms: equal things have equal hashes and names, different things do not."""

import json
import os
import random
from pathlib import Path

import pytest
from manifests import changed, loaded, write

from experiments.identity import (
    canonical,
    content_hash,
    file_digest,
    folder_name,
    folders_by_hash,
    number_text,
    safe_name,
)
from experiments.loading import load


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (5e-7, 0.0000005),
        (1.0, 1),
        (-0.0, 0),
        (1e20, 10**20),
        (2.0**60, 2**60),
        ((1, 2), [1.0, 2.0]),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
    ],
)
def test_equal_values_have_one_hash(left: object, right: object) -> None:
    assert content_hash(left) == content_hash(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (True, 1),
        (False, 0),
        (None, 0),
        ("1", 1),
        (0.1, 0.1 + 2**-56),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"A": 1}),
        ("é", "e\u0301"),
    ],
)
def test_different_values_have_different_hashes(left: object, right: object) -> None:
    assert content_hash(left) != content_hash(right)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), Path("a"), [float("-inf")]])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot be part of an experiment's identity"):
        canonical(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (5e-7, "5e-7"),
        (0.0005, "5e-4"),
        (0.0003, "3e-4"),
        (0.001, "0.001"),
        (1.25e-5, "1.25e-5"),
        (-2e-6, "-2e-6"),
        (0, "0"),
        (1e20, "100000000000000000000"),
        (True, "true"),
        ("cosine", "cosine"),
    ],
)
def test_numbers_in_names_are_short(value: object, text: str) -> None:
    assert number_text(value) == text


def test_a_number_in_a_name_reads_back_as_itself() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        value = draw.uniform(-10, 10) * 10.0 ** draw.randint(-12, 3)
        assert float(number_text(value)) == value


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a/b\\c:d", "a_b_c_d"),
        ("../../etc", "etc"),
        ("naïve.Größe", "naive.Groe"),
        ("日本", "cell"),
        ("a b\nc", "a_b_c"),
        ("", "cell"),
        (".hidden", "hidden"),
    ],
)
def test_names_are_made_safe(text: str, safe: str) -> None:
    assert safe_name(text) == safe


def test_an_over_long_name_still_makes_a_folder(tmp_path: Path) -> None:
    name = folder_name("x" * 500, "0123456789abcdef")
    assert len(name) == 120 + len("--0123456789")
    os.mkdir(tmp_path / name)
    assert folders_by_hash(tmp_path) == {"0123456789": tmp_path / name}


def test_cells_with_over_long_names_have_folders_of_their_own(tmp_path: Path) -> None:
    names = {"model" * 20: changed()["models"]["tiny"]}
    plan = loaded(tmp_path, models=names, methods__dpo={"from": "sft", "grid": {"beta": [0.1, 0.2]}})
    folders = {plan.study.cell(cell).folder.name for cell in plan.grid.cells}
    assert len(folders) == len(plan.grid.cells)
    assert max(map(len, folders)) <= 132


def test_a_file_and_a_folder_have_digests_of_their_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "a").write_text("text")
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")
    assert file_digest(tmp_path / "one/inner/a") == file_digest(tmp_path / "two/inner/a")
    (tmp_path / "two/inner/a").rename(tmp_path / "two/inner/b")
    assert file_digest(tmp_path / "one") != file_digest(tmp_path / "two")


def hashes(folder: Path, data: object) -> dict[str, str]:
    plan = load(write(folder, data), folder / "runs")
    return {cell.name: plan.study.cell(cell).digest for cell in plan.grid.cells}


def reversed_keys(data: object) -> object:
    if isinstance(data, dict):
        return {key: reversed_keys(value) for key, value in reversed(data.items())}
    return [reversed_keys(item) for item in data] if isinstance(data, list) else data


def test_hashes_ignore_key_order_comments_and_place_of_the_manifest(tmp_path: Path) -> None:
    data = changed(
        methods__dpo={"from": "sft", "params": {"beta": 0.1, "margin": 0.5}, "grid": {"epochs": [1, 2]}}
    )
    expected = hashes(tmp_path / "a", data)
    assert hashes(tmp_path / "b", reversed_keys(data)) == expected
    assert hashes(tmp_path / "c/d", f"# a comment\n{json.dumps(data, indent=1)}\n# another") == expected
    assert hashes(tmp_path / "e", data | {"name": "other"}) == expected


def test_hashes_follow_the_content_of_data_and_not_its_path(tmp_path: Path) -> None:
    def with_data(folder: str, text: str) -> dict[str, str]:
        path = tmp_path / folder / "rows.jsonl"
        path.parent.mkdir()
        path.write_text(text)
        data = changed(
            tasks__numbers__train={"dataset": str(path)}, tasks__numbers__tests={"a": {"dataset": str(path)}}
        )
        del data["tasks"]["numbers"]["data"]
        return hashes(path.parent, data)

    first = with_data("a", '{"source": "x", "reference": "y"}\n')
    assert with_data("b", '{"source": "x", "reference": "y"}\n') == first
    other = with_data("c", '{"source": "x", "reference": "z"}\n')
    assert set(other) == set(first)
    assert not set(other.values()) & set(first.values())


def test_hashes_follow_the_text_of_a_template_and_not_its_path(tmp_path: Path) -> None:
    texts = {"a": "{{ source }}\n", "b": "{{ source }}\n", "c": "{{ source }}\n\n"}
    found = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found[name] = hashes(tmp_path, changed(tasks__numbers__prompt=str(tmp_path / name)))
    assert found["a"] == found["b"] == hashes(tmp_path, changed())
    assert not set(found["a"].values()) & set(found["c"].values())


def test_hashes_follow_the_text_of_a_chat_template_and_not_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    (tmp_path / "chat.jinja").write_text(text)
    monkeypatch.setenv("TEMPLATES", str(tmp_path))
    inline, file = (
        hashes(tmp_path, changed(models__tiny__chat_template=template))
        for template in (text, "${TEMPLATES}/chat.jinja")
    )
    assert inline == file != hashes(tmp_path, changed())


def test_the_demo_keeps_the_hashes_that_it_had(tmp_path: Path) -> None:
    """Folders of users' studies are found by these; a change that is meant must raise ``SCHEMA``."""
    plan = load(Path("experiments/manifests/demo.yaml"), tmp_path)
    hashes = {cell.name: plan.study.cell(cell).document["hashes"] for cell in plan.grid.cells}
    names = ("base", "sft.s1", "dpo.s2", "simpo.s1")
    assert {
        name: tuple(hashes[f"tiny.numbers.{name}"][stage][:10] for stage in ("train", "generate"))
        for name in names
    } == {
        "base": ("252a4113e4", "52f5b107f2"),
        "sft.s1": ("ab574cca40", "77970b566e"),
        "dpo.s2": ("d51f8d11d3", "cf4b98229f"),
        "simpo.s1": ("3688f57c5d", "8f84596fcc"),
    }
