"""Two processes, each with whole weights or with its share of them, train the adapters that one trains."""

import pytest
import torch
from adapter_cells import adapter_cell, experiment, trained_policy
from safetensors.torch import load_file
from tiny_training import random_pairs, tiny_llama
from torch.distributed.tensor import DTensor
from two_processes import in_two_processes

from po import train
from po.models.adapters import adapter_reference, with_adapter
from po.models.merging import save_merged

pytestmark = pytest.mark.slow
SETTINGS = {"r": 4, "modules_to_save": ["lm_head"]}


def run(folder, method, kind, micro):
    """Losses, and the published weights, of three steps of eight pairs."""
    policy = with_adapter(tiny_llama(), SETTINGS, seed=1)
    params = {"sync_steps": 1, "sync_mix": 0.5} if method == "tr_dpo" else {}
    trainer = trained_policy(
        folder, policy, adapter_reference(policy, kind), method, params, rows=random_pairs(32), max_steps=3,
        per_device_train_batch_size=micro, learning_rate=0.01,
    )  # fmt: skip
    save_merged(trainer, folder / "model", tiny_llama, torch.float32)
    sharded = any(isinstance(weights, DTensor) for weights in trainer.model.parameters())
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], sharded


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize(
    ("method", "kind"), [("tdpo1", "off"), ("tdpo1", "copy"), ("tdpo1", "merged"), ("tr_dpo", "copy")]
)
def test_two_processes_train_the_adapters_that_one_trains(tmp_path, method, kind, sharded):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()

    def work(rank):
        torch.save(run(two, method, kind, 4), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=sharded)
    expected, _ = run(one, method, kind, 8)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == (pytest.approx(expected, rel=1e-4), sharded)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    start = tiny_llama().state_dict()
    for name, weights in ours.items():
        assert torch.allclose(weights, theirs[name], atol=1e-4), name
        assert name.endswith(("norm.weight", "embed_tokens.weight")) or not torch.equal(weights, start[name])


def test_two_processes_train_a_cell(tmp_path):
    root = experiment(tmp_path / "runs")
    settings = {"adapter": {"reference": "copy"}, "per_device_batch_size": 2, "max_steps": 2}
    one, two = (adapter_cell(root, name, "tr_dpo", **settings) for name in ("one", "two"))
    in_two_processes(tmp_path, lambda rank: train.main([str(two)]))
    assert train.main([str(one)]) == 0
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    for name, weights in ours.items():
        assert torch.allclose(weights, theirs[name], atol=1e-5), name
