import pytest
import yaml
from tiny_training import add_dpo, make_experiment

from po import train


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A supervised cell and a dpo cell that starts from it, both trained."""
    sft = make_experiment(tmp_path_factory.mktemp("runs"))
    dpo = add_dpo(sft.parents[1], sft)
    assert [train.main([str(cell)]) for cell in (sft, dpo)] == [0, 0]
    return sft, dpo


def test_a_trained_model_brings_a_card_with_its_method_start_and_data(cells):
    card = (cells[1] / "model" / "README.md").read_text()
    for fact in ("2305.18290", "the cell tiny.toy.sft.s1--0", "its values stored before training", "beta"):
        assert fact in card
    assert "train.jsonl of tiny.toy--0" in card
    assert "datasets" not in yaml.safe_load(card.split("---")[1])  # a file is no data set of a hub


def test_the_card_of_a_first_model_says_that_its_weights_were_random(cells):
    card = (cells[0] / "model" / "README.md").read_text()
    assert "random weights" in card and "stored before training" not in card
