"""A method is one function and one entry: with these two a cell trains, from its settings to its card."""

import json

import pytest
import torch
from jaxtyping import Float
from tiny_training import add_dpo, make_experiment, read_log
from torch import Tensor

from po import train
from po.methods import METHODS, Method
from po.methods.hyperparameters import Range
from po.methods.rewards import from_log_ratio


def cubic(
    policy_chosen: Float[Tensor, " batch"],
    policy_rejected: Float[Tensor, " batch"],
    reference_chosen: Float[Tensor, " batch"],
    reference_rejected: Float[Tensor, " batch"],
    *,
    beta: float = 0.1,
    width: float = 2.0,
) -> Float[Tensor, " batch"]:
    """A loss that nobody has proposed."""
    lead = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return torch.relu(width - beta * lead).pow(3)


ENTRY = Method(
    name="cubic",
    loss=cubic,
    logps="sum",
    ranges={"beta": Range(0, 10, "reward per nat"), "width": Range(0, 10, "reward")},
    formula="max(0, width - beta·Δ)³",
    paper="this test",
    rewards=from_log_ratio("beta"),
)


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """A cell of the new method below a trained one."""
    sft = make_experiment(tmp_path)
    assert train.main([str(sft)]) == 0
    monkeypatch.setattr("po.methods.METHODS", {**METHODS, ENTRY.name: ENTRY})
    folder = add_dpo(tmp_path, sft)
    document = json.loads((folder / "cell.json").read_text())
    document["train"] |= {"method": "cubic", "params": ENTRY.check_params({"width": 1})}
    (folder / "cell.json").write_text(json.dumps(document))
    return folder


def test_a_method_of_one_function_and_one_entry_trains_a_cell(cell):
    assert train.main([str(cell)]) == 0
    log = read_log(cell)
    assert log[0]["loss"] == pytest.approx(1.0, abs=1e-5)  # policy is reference: width cubed
    assert log[-2]["rewards/margins"] > log[0]["rewards/margins"]
    assert "max(0, width - beta·Δ)³" in (cell / "model" / "README.md").read_text()
