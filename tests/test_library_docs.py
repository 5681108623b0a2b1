"""The page about use as a library: its code runs as it stands, and TRL's script and ours do the same."""

import json
import re
from pathlib import Path

import pytest
from tiny_library import text_pairs, word_tokenizer
from tiny_training import tiny_llama

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the names of the page's code stand for once it has run, and each trainer that it made."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("page")
    tiny_llama().save_pretrained(folder / "my-sft-model")
    word_tokenizer().save_pretrained(folder / "my-sft-model")
    # TRL puts nothing between prompt and completion; here a blank is
    rows = [row | {"prompt": f"{row['prompt']} "} for row in text_pairs(16)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names, trainers = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CI", "1")  # TRL then reports nothing to its makers
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
            trainers.append(names.get("trainer"))
    return folder, names, trainers


def losses(trainer):
    return [logs["loss"] for logs in trainer.state.log_history if "loss" in logs]


def test_the_two_scripts_log_the_same(ran):
    theirs, ours = ran[2][:2]
    assert type(theirs).__name__ == "DPOTrainer" and type(ours).__name__ == "PreferenceTrainer"
    assert len(losses(ours)) == 4 and losses(ours)[0] != losses(ours)[-1]
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)
    for name in ("rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"):
        for one, other in zip(ours.state.log_history[:4], theirs.state.log_history[:4], strict=True):
            assert one[name] == pytest.approx(other[name], abs=1e-3), name


def test_both_scripts_leave_a_model_with_a_card(ran):
    for folder in ("trl-hinge", "our-hinge"):
        assert (ran[0] / folder / "model.safetensors").is_file() and (ran[0] / folder / "README.md").is_file()


def test_hyperparameters_of_the_page_are_those_that_are_used(ran):
    assert ran[1]["simpo"].resolved_params["gamma"] == 1.0
    assert ran[1]["mixed"].resolved_params["ipo_tau"] == 0.5


def test_each_trainer_of_the_page_has_trained(ran):
    ours = {id(trainer): trainer for trainer in ran[2][1:]}.values()
    assert [trainer.method.name for trainer in ours] == ["slic_dpo", "kto", "ipo", "dpo"]
    assert all(trainer.state.global_step == 4 for trainer in ours)


def test_the_page_links_what_is_there():
    for link in re.findall(r"\]\(([\w./-]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).is_file(), link
