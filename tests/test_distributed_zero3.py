"""A policy that DeepSpeed shards between two gloo processes (ZeRO-3) trains as a whole one does.

Runs where deepspeed is installed (`pip install --no-build-isolation deepspeed`); `make test` leaves it out.
"""

import importlib.util

import pytest
import torch
from test_distributed_sharding import CASES, losses, trained
from two_processes import in_two_processes

DEEPSPEED = importlib.util.find_spec("deepspeed")
pytestmark = pytest.mark.skipif(not DEEPSPEED, reason="deepspeed is not installed")


def norms(trainer):
    return [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]


@pytest.mark.parametrize("name", CASES)
def test_a_policy_under_zero3_has_the_losses_and_weights_of_a_whole_one(tmp_path, name, monkeypatch):
    monkeypatch.setattr("po.engine.logps.CHUNK_BYTES", 4 * 60 * 32)

    def work(rank):
        trainer, _ = trained(tmp_path, name, 4, torch.float32)
        assert all(hasattr(parameter, "ds_id") for parameter in trainer.model.parameters())
        assert trainer.is_deepspeed_enabled and trainer.accelerator.num_processes == 2
        whole = trainer.accelerator.get_state_dict(trainer.deepspeed)
        torch.save((losses(trainer), norms(trainer), whole), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=True, config="zero3")
    trainer, _ = trained(tmp_path, name, 8, torch.float32)
    found_losses, found_norms, weights = torch.load(tmp_path / "0.pt", weights_only=False)
    assert found_losses == pytest.approx(losses(trainer), rel=1e-5)
    assert found_norms == pytest.approx(norms(trainer), rel=1e-5)
    for key, expected in trainer.model.state_dict().items():
        torch.testing.assert_close(weights[key], expected, rtol=1e-3, atol=2e-4, msg=key)
