"""bfloat16: values and losses stay float32, policy and reference agree, training stays near float32's."""

import copy

import pytest
import torch
from tiny_models import tiny, with_reference
from tiny_training import preference_trainer, random_pairs, tiny_llama

from po.engine.forward import attach_engine, completion_values
from po.engine.token_values import Asked
from po.models.loading import disable_dropout
from po.references.values import reference_values, with_values
from po.training.collate import Collator, text_part

PURE, AUTOCAST = "pure", "autocast"
LONG = 500  # tokens of a completion


def in_bf16(model, how):
    return copy.deepcopy(model).to(torch.bfloat16) if how == PURE else copy.deepcopy(model)


def values_of(model, batch, how=None, **asked):
    with torch.autocast("cpu", torch.bfloat16, enabled=how == AUTOCAST):
        return completion_values(model, batch, Asked(**asked))[0]


def long_batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (2, 4 + LONG), generator=generator)
    ids[1, :4] = ids[0, :4]
    completion = torch.ones_like(ids, dtype=torch.bool)
    completion[:, :4] = False
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": completion,
        "prompt_rows": torch.zeros(2, dtype=torch.long),
    }


@pytest.mark.parametrize("how", [AUTOCAST, PURE])
def test_a_long_completion_is_summed_in_float32(how):
    model = tiny_llama()
    batch = long_batch()
    expected = values_of(attach_engine(copy.deepcopy(model)), batch)["logps"]
    model = attach_engine(in_bf16(model, how))
    found = values_of(model, batch, how)["logps"]
    tokens = values_of(model, batch, how, tokens=True)["token_logps"]
    assert found.dtype == tokens.dtype == torch.float32
    exact = tokens.double().sum(dim=1)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    in_bfloat16 = torch.zeros(2, dtype=torch.bfloat16)
    for column in tokens.detach().bfloat16().T:
        in_bfloat16 += column
    assert (in_bfloat16.double() - exact).abs().min() > 10  # nats: such a sum would be of no use
    assert (found - expected).abs().max() < 1e-3 * LONG  # nats: rounding of the products


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "phi3"])
@pytest.mark.parametrize("how", [AUTOCAST, PURE])
def test_packed_and_padded_rows_are_equally_near_to_float32(name, how):
    plain = tiny(name)
    disable_dropout(plain)
    batch = Collator("paired")(random_pairs(6))
    expected = values_of(attach_engine(copy.deepcopy(plain)), batch)["logps"]
    lengths = batch["completion_mask"].sum(dim=1)
    gaps = {}
    for sharing in (True, False):
        model = attach_engine(in_bf16(plain, how), sharing=sharing)
        assert model._shares == sharing
        found = values_of(model.train(), batch, how)["logps"]
        found.sum().backward()
        kinds = {parameter.grad.dtype for parameter in model.parameters()}
        assert kinds == {torch.bfloat16 if how == PURE else torch.float32}
        assert found.dtype == torch.float32
        gaps[sharing] = ((found - expected) / lengths).abs().max().item()
    assert max(gaps.values()) < 0.1  # nats a token, of models with sharp distributions
    assert min(gaps.values()) > 1e-5  # bfloat16 was really used


@pytest.mark.parametrize("how", [AUTOCAST, PURE])
def test_policy_and_reference_agree_at_the_start(how):
    rows, precision = random_pairs(16), "bf16" if how == AUTOCAST else "fp32"
    model = in_bf16(tiny_llama(), how)
    rows = with_values(rows, reference_values(copy.deepcopy(model), rows, precision))
    batch = Collator("paired", ("reference_logps",))(rows)
    policy = values_of(attach_engine(model), text_part(batch), how)["logps"]
    gaps = (policy - batch["reference_logps"]).abs() / batch["completion_mask"].sum(dim=1)
    assert gaps.max() < 0.01  # nats a token; another batch rounds otherwise, so they need not be equal


def test_one_batch_in_bfloat16_has_one_answer():
    model, batch = attach_engine(tiny_llama()), Collator("paired")(random_pairs(8))
    first, second = (values_of(model, batch, AUTOCAST)["logps"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("how", "tolerance"), [(AUTOCAST, 0.02), (PURE, 0.05)])
def test_a_short_training_stays_near_that_in_float32(tmp_path, how, tolerance):
    plain, steps = tiny_llama(), 6
    logs = {}
    for kind in (None, how):
        model = plain if kind is None else in_bf16(plain, kind)
        rows = with_reference(random_pairs(32), model)
        trainer = preference_trainer(
            tmp_path, model, rows, "dpo", {"beta": 0.5}, max_steps=steps, bf16=kind == AUTOCAST,
            per_device_train_batch_size=8, learning_rate=2e-3, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer.train()
        logs[kind] = torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(logs[how]) == steps
    assert logs[None][-1] < logs[None][0] - 0.1  # something is learnt
    assert (logs[how] - logs[None]).abs().max() < tolerance


@pytest.mark.parametrize("how", [AUTOCAST, PURE])
@pytest.mark.parametrize("method", ["dpo", "simpo", "orpo"])
def test_losses_are_float32(tmp_path, method, how):
    model = in_bf16(tiny_llama(), how)
    rows = with_reference(random_pairs(8), model)
    trainer = preference_trainer(tmp_path, model, rows, method, bf16=how == AUTOCAST)
    batch = trainer.data_collator(rows)
    with trainer.compute_loss_context_manager():
        loss, outputs = trainer.compute_loss(trainer.model.eval(), batch, return_outputs=True)
    assert loss.dtype == outputs["losses"].dtype == torch.float32
