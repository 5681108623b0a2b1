"""Mixtures of experts: the load-balancing loss of their routers."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import MIXTURES, assert_same_gradients, gradients, tiny
from tiny_training import preference_trainer, random_pairs
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from po.engine.forward import attach_engine, completion_values
from po.engine.routers import has_router
from po.engine.token_values import Asked
from po.faults import InputFault
from po.models.loading import disable_dropout
from po.references.sources import LiveReference
from po.training.collate import Collator

ROUTED = [*MIXTURES, "granitemoe"]

pytestmark = pytest.mark.filterwarnings("ignore:.*changes the logits of its head")


@pytest.fixture
def batch():
    return Collator()(random_pairs(20))


def own_loss(model, batch):
    """The loss that the model itself computes for a batch, without padding."""
    ids = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model(**ids, output_router_logits=True).aux_loss


@pytest.mark.parametrize("name", ROUTED)
def test_the_loss_of_the_routers_is_the_models_own_in_value_and_gradient(name, batch):
    model = tiny(name)
    expected = own_loss(model, batch)
    expected_gradients = gradients(model, expected)
    found = completion_values(attach_engine(model), batch, Asked(router=True))[0]["aux_loss"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradients(gradients(model, found), expected_gradients, 1e-4)
    padded = {"input_ids": batch["input_ids"], "attention_mask": torch.ones_like(batch["attention_mask"])}
    assert abs(own_loss(model, padded) - expected) > 1e-5  # so padding would be seen


@pytest.mark.parametrize("name", ROUTED)
def test_gradient_checkpointing_leaves_the_gradient_of_the_routers_as_it_is(name, batch):
    model = attach_engine(tiny(name))
    disable_dropout(model)
    model.train()

    def both():
        values, _ = completion_values(model, batch, Asked(router=True))
        return gradients(model, values["logps"].mean() + values["aux_loss"])

    expected = both()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_gradients(both(), expected, 1e-5)


def run(tmp_path, rows, method="simpo", coefficient=0.5, name="mixtral", **more):
    """A trainer after one step that changes nothing, and its log."""
    model = tiny(name)
    disable_dropout(model)
    more = {"learning_rate": 0.0, "per_device_train_batch_size": len(rows), **more}
    trainer = preference_trainer(tmp_path, model, rows, method, router_aux_loss_coef=coefficient, **more)
    trainer.train()
    return trainer, trainer.state.log_history[0]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_loss_of_the_routers_is_logged_and_enters_with_its_coefficient(tmp_path, name):
    rows = random_pairs(8)
    expected = own_loss(tiny(name), Collator()(rows)).item()
    _, without = run(tmp_path, rows, coefficient=0.0, name=name)
    _, log = run(tmp_path, rows, coefficient=0.5, name=name)
    assert log["aux_loss"] == pytest.approx(expected, rel=1e-5)
    assert log["loss"] - without["loss"] == pytest.approx(0.5 * expected, rel=1e-5)
    assert "aux_loss" not in without


def test_the_share_of_the_routers_is_a_mean_whatever_the_micro_batches(tmp_path):
    rows = random_pairs(8)
    _, without = run(tmp_path, rows, coefficient=0.0)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    _, log = run(tmp_path, rows, **split)
    assert log["loss"] - without["loss"] == pytest.approx(0.5 * log["aux_loss"], rel=1e-4)
    assert log["aux_loss"] > 1


def test_the_reference_is_not_asked_for_it(tmp_path, monkeypatch):
    rows, asked_for = random_pairs(8), []
    reference = LiveReference(attach_engine(copy.deepcopy(tiny("mixtral"))))
    values = reference.values
    monkeypatch.setattr(
        reference, "values", lambda batch, asked: asked_for.append(asked) or values(batch, asked)
    )
    trainer, log = run(tmp_path, rows, "dpo", reference=reference)
    assert [asked.router for asked in asked_for] == [False]
    assert log["aux_loss"] > 1 and trainer.router_aux_loss_coef == 0.5


def test_a_model_without_routers_has_no_such_loss(tmp_path):
    trainer, log = run(tmp_path, random_pairs(8), name="llama")
    assert trainer.router_aux_loss_coef == 0
    assert "aux_loss" not in log


def test_routers_are_found_below_adapters():
    adapters = LoraConfig(r=2, target_modules=["q_proj"])
    assert has_router(get_peft_model(tiny("mixtral"), adapters))
    assert not has_router(get_peft_model(tiny("llama"), adapters))


def test_an_encoder_decoder_with_experts_is_refused_with_the_way_out():
    shape = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    model = SwitchTransformersForConditionalGeneration(
        SwitchTransformersConfig(**shape, num_experts=2, decoder_start_token_id=0)
    )
    with pytest.raises(InputFault, match="set router_aux_loss_coef to 0"):
        has_router(model)
