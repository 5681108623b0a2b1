import json

import pytest
from toy_stage import plan, start, state

from experiments.stage_command import read_command
from experiments.stage_process import run_stage

TIMEOUT_S = 20.0


def test_a_stage_without_a_command_says_who_writes_it(tmp_path):
    process = start(tmp_path)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "nothing says what stage 'train' is; let experiments.run plan it first" in err
    assert "stage.train.json" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema = 2; this version reads 1"),
        ({"argv": "--fast"}, "argv = '--fast': a list of texts is needed"),
        ({"module": ""}, "module = '': a text that is not empty is needed"),
        ({"max_attempts": 0}, "max_attempts = 0: a whole number from 1 is needed"),
        ({"max_atempts": 3}, "max_atempts"),
    ],
)
def test_a_bad_command_is_named_with_its_file_and_is_not_tried_again(tmp_path, change, message):
    plan(tmp_path, "write")
    path = tmp_path / "stage.train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="stage.train.json: ") as caught:
        read_command(tmp_path, "train")
    assert message in str(caught.value)
    process = start(tmp_path)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, message in err) == (65, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a whole JSON document"),
        ('{"schema": 2}', "schema = 2"),
        ('{"schema": 1}', "missing 10 required keyword-only arguments"),
    ],
)
def test_a_damaged_status_is_named(tmp_path, content, message):
    (tmp_path / "status.train.json").write_text(content)
    with pytest.raises(ValueError, match="status.train.json: ") as caught:
        state(tmp_path)
    assert message in str(caught.value)


def test_an_unknown_state_is_refused_with_those_that_are_known(tmp_path):
    plan(tmp_path, "write")
    run_stage(tmp_path, "train")
    path = tmp_path / "status.train.json"
    path.write_text(path.read_text().replace('"done"', '"dun"'))
    with pytest.raises(ValueError, match="state = 'dun'; known: pending, running, done"):
        state(tmp_path)
