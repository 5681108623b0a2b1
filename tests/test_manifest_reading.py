"""A manifest's text: numbers, words, duplicate keys, broken files; and whatever else may stand there."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from manifests import SMALL, changed, faults, only_fault, write

from experiments.grid import GridError, expand_grid
from experiments.manifest import checked_manifest, read_manifest
from experiments.problems import ManifestError
from experiments.yaml_source import Document, read_document


def test_a_key_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "name: twice\nseeds: [1]\nname: again\n")
    with pytest.raises(ManifestError) as raised:
        read_manifest(path)
    assert f"{path}:3: name\n      the key stands here and on line 1; keep one" in str(raised.value)


@pytest.mark.parametrize("written", ["1e-7", "1.0e-7", "1E-7", "0.0000001", ".1e-6", "+1e-7"])
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, written: str) -> None:
    text = json.dumps(SMALL).replace("0.001", written)
    assert read_manifest(write(tmp_path, text)).methods["sft"].params["learning_rate"] == 1e-7


@pytest.mark.parametrize(
    "written", ["'1e-7'", "0x10", "010", "1_", "1:30", "2020-01-01", "yes", ".inf", "-.inf", ".nan"]
)
def test_what_is_no_finite_number_is_no_learning_rate(tmp_path: Path, written: str) -> None:
    (fault,) = faults(
        tmp_path,
        json.dumps(changed(training={})).replace(
            '"training": {}', f'"training": {{"learning_rate": {written}}}'
        ),
    )
    assert fault.startswith("training.learning_rate: ")
    assert "Input should be" in fault


def test_a_quoted_number_is_told_to_drop_its_quotes(tmp_path: Path) -> None:
    assert only_fault(tmp_path, training={"learning_rate": "1e-7"}).endswith(
        "write the number without quotes"
    )


@pytest.mark.parametrize("word", ["no", "on", "off", "yes", "No"])
def test_no_and_on_are_words_and_not_booleans(tmp_path: Path, word: str) -> None:
    text = json.dumps(changed(training={})).replace(
        '"training": {}', f'"training": {{"disable_dropout": {word}}}'
    )
    (fault,) = faults(tmp_path, text)
    assert (
        fault == f"training.disable_dropout: {word!r}: Input should be a valid boolean; write true or false"
    )
    language = json.dumps(SMALL).replace('"target_lang": "de"', f'"target_lang": {word}')
    assert read_manifest(write(tmp_path, language)).tasks["numbers"].target_lang == word


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"- a\n- b\n", "Input should be a valid dictionary or instance of Manifest"),
        (b"name: [unclosed\n", "not YAML: expected ',' or ']'"),
        (b"name: \xff\n", "not YAML: 'utf-8' codec can't decode"),
        (b"name: a\x00b\n", "not YAML: unacceptable character"),
        (b"models: &m {tiny: *m}\n", "an alias refers to what it stands in"),
        (b"name: !!python/object:os.system {}\n", "not YAML: could not determine a constructor"),
        (b"? [a]\n: b\n", "not YAML: found unhashable key"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_message(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="nothing was started") as raised:
        read_manifest(path)
    assert words in str(raised.value)


def test_a_missing_manifest_points_to_those_that_come_along(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file; .* experiments/manifests"):
        read_manifest(tmp_path / "none.yaml")


def places(data: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [(*above, key) for key, _ in inside] + [
        place for key, value in inside for place in places(value, (*above, key))
    ]


def test_whatever_stands_anywhere_the_answer_is_a_plan_or_a_list_of_faults(tmp_path: Path) -> None:
    whole = changed(
        methods__simpo={
            "from": "sft",
            "zip": {"beta": [2.0], "gamma": [1.0]},
            "list": [{"beta": 3.0}],
            "grid": {"epochs": [1]},
        },
        overrides=[
            {
                "when": {"method": "dpo", "params.beta": {"lt": 1}},
                "set": {"training.epochs": 2.0, "params.beta": 0.3},
            }
        ],
        exclude=[{"when": {"seed": [2], "method": "simpo"}, "reason": "slow"}],
        resources={"default": {"cpus": 2}, "rules": [{"when": {"stage": "train"}, "set": {"cpus": 2}}]},
        report={"baseline": "sft", "select": {"metric": "chrf"}},
    )
    assert faults(tmp_path, whole) == []
    outcomes = []
    for place in places(whole):
        for value in (None, [], {}, [[]], {"a": {"b": [1]}}, "x", -1, 0.5, True, float("nan")):
            data = copy.deepcopy(whole)
            at = data
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
            try:
                expand_grid(checked_manifest(Document(tmp_path, data)))
                outcomes.append("plan")
            except (ManifestError, GridError) as error:
                outcomes.append("faults")
                assert all(problem.message for problem in error.problems)
    assert len(outcomes) > 500
    assert outcomes.count("faults") > 4 * outcomes.count("plan") > 0


def test_aliases_of_aliases_do_not_take_forever(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (tmp_path / "m.yaml").write_text("\n".join(lines))
    document = read_document(tmp_path / "m.yaml")
    assert document.data is None
    assert [problem.message for problem in document.problems] == [
        "more than 100,000 entries, what aliases stand for counted each time"
    ]


def test_a_file_that_is_nested_too_deeply_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("a: " + "[" * 5000 + "]" * 5000)
    (problem,) = read_document(tmp_path / "m.yaml").problems
    assert "nested too deeply" in problem.message
