"""Packed rows in training: adapters, checkpoints of activations, bf16, dropout, references."""

from unittest.mock import patch

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import MIXTURES, assert_same_gradients, gradients, tiny
from tiny_sharing import assert_same, both_ways, candidates, values_and_gradients
from tiny_training import preference_trainer, random_pairs
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from po.engine.forward import attach_engine, completion_logps
from po.engine.packing import pack
from po.engine.token_values import Asked
from po.models.adapters import adapter_reference, with_adapter
from po.models.loading import disable_dropout
from po.references.sources import LiveReference
from po.settings import SpeedSettings
from po.training.collate import Collator

ADAPTERS = {
    "attention and mlp": {"target_modules": ["q_proj", "v_proj", "gate_proj", "down_proj"]},
    "dora": {"target_modules": ["q_proj", "k_proj", "up_proj"], "use_dora": True},
    "head beside": {"target_modules": ["q_proj", "lm_head"]},
    "head saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture
def batch():
    return Collator("ranked")(candidates(3))


def adapted(name, more, moved=True):
    model = tiny(name)
    disable_dropout(model)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **more))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and moved:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(name, kind, batch):
    found = both_ways(lambda: adapted(name, ADAPTERS[kind]), batch)
    assert_same(found)
    assert any("lora" in parameter for parameter in found[0][1])


def test_a_reference_with_the_adapters_off_is_the_model_below_them():
    rows = random_pairs(5)
    policy = attach_engine(with_adapter(tiny("llama"), {"r": 4, "alpha": 8.0}, seed=1))
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    below = tiny("llama")
    disable_dropout(below)
    expected, _ = completion_logps(attach_engine(below, sharing=False), Collator()(rows))
    with patch("po.engine.forward.pack", wraps=pack) as calls:
        found = adapter_reference(policy, "off").values(Collator()(rows), Asked())["logps"]
    assert calls.call_count == 1
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-5)
    ours, _ = completion_logps(policy.eval(), Collator()(rows))
    assert (ours - found).abs().max() > 0.1


@pytest.mark.parametrize("name", ["llama", "gemma2", *MIXTURES])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_of_activations(name, reentrant, batch):
    def trained(model):
        disable_dropout(model)
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        return model

    assert_same(both_ways(lambda: tiny(name), batch, router=name in MIXTURES, change=trained))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_of_activations_with_adapters(reentrant, batch):
    def trained(model):
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        return model

    found = both_ways(lambda: adapted("llama", ADAPTERS["attention and mlp"]), batch, change=trained)
    assert_same(found)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_autocast_in_bf16_is_as_near_to_exact_values_as_padded_rows_are(name):
    batch = Collator()(random_pairs(12))
    exact, slopes = values_and_gradients(attach_engine(tiny(name)), batch)
    gaps = {}
    for sharing in (True, False):
        model = attach_engine(tiny(name), sharing=sharing)
        with torch.autocast("cpu", torch.bfloat16):
            values, rough = values_and_gradients(model, batch)
        assert values["logps"].dtype == torch.float32
        size = sum(gradient.square().sum() for gradient in slopes.values()).sqrt()
        off = sum((rough[key] - gradient).square().sum() for key, gradient in slopes.items()).sqrt()
        gaps[sharing] = ((values["logps"] - exact["logps"]).abs().mean(), off / size)
    for packed, padded in zip(gaps[True], gaps[False], strict=True):
        assert packed <= 1.5 * padded + 1e-3
    assert 0 < gaps[True][1] < 0.2  # these weights are large; the roundings of bf16 grow in them


def test_a_model_in_bf16_shares_prompts_too():
    batch = Collator()(random_pairs(6))
    model = attach_engine(tiny("llama").to(torch.bfloat16))
    assert model._shares
    exact, counts = completion_logps(attach_engine(tiny("llama")), batch)
    assert ((completion_logps(model, batch)[0] - exact).abs() / counts).median() < 0.1


def test_dropout_has_rows_of_their_own_so_that_each_draws_for_itself():
    batch = Collator()(random_pairs(6))
    found = {}
    for sharing in (True, False):
        model = attach_engine(tiny("llama"), sharing=sharing).train()
        torch.manual_seed(7)
        with patch("po.engine.forward.pack", wraps=pack) as calls:
            logps, _ = completion_logps(model, batch)
        assert calls.call_count == 0
        found[sharing] = logps.detach(), gradients(model, logps.sum())
    assert torch.equal(found[True][0], found[False][0])
    assert_same_gradients(found[True][1], found[False][1], 1e-6)
    model = attach_engine(tiny("llama")).train()
    disable_dropout(model)
    with patch("po.engine.forward.pack", wraps=pack) as calls:
        quiet, _ = completion_logps(model, batch)
    assert calls.call_count == 1
    assert (quiet - found[True][0]).abs().max() > 0.01


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    batch, model = Collator()(random_pairs(6)), attach_engine(tiny("gemma2"))
    expected, _ = completion_logps(model, batch)
    with context():
        found, _ = completion_logps(model, batch)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-6)
    again, _ = completion_logps(model, batch)  # what a pass without gradients kept is no part of another
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)
    assert again.requires_grad


def test_a_step_with_a_live_reference_gives_the_weights_that_padded_rows_give(tmp_path):
    start, rows, weights = tiny("llama"), random_pairs(8), []
    disable_dropout(start)
    for sharing in (True, False):
        policy, reference = (attach_engine(tiny("llama"), sharing=sharing) for _ in range(2))
        for model in (policy, reference):
            disable_dropout(model)
        trainer = preference_trainer(
            tmp_path / str(sharing), policy, rows, "dpo", {"beta": 0.5}, optim="sgd", max_steps=3,
            reference=LiveReference(reference.requires_grad_(False)), per_device_train_batch_size=4,
        )  # fmt: skip
        trainer.train()
        weights.append(dict(trainer.model.named_parameters()))
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=0, atol=1e-5)
    assert any(not torch.equal(weights[1][name], weight) for name, weight in start.named_parameters())


def test_padded_rows_can_be_asked_for_where_the_reference_was_attached_before(tmp_path):
    model = with_adapter(tiny("llama"), {"r": 4, "alpha": 8.0}, seed=1)
    disable_dropout(model)
    reference = adapter_reference(model, "off")
    rows = random_pairs(8)
    speed = SpeedSettings(sharing="off")
    with patch("po.engine.forward.pack", wraps=pack) as calls:
        trainer = preference_trainer(tmp_path, model, rows, "tdpo2", reference=reference, speed=speed)
        trainer.train()
    assert calls.call_count == 0


def test_a_frozen_reference_of_its_own_is_padded_too(tmp_path):
    policy, reference = tiny("llama"), LiveReference(attach_engine(tiny("llama", seed=1)))
    disable_dropout(policy)
    with patch("po.engine.forward.pack", wraps=pack) as calls:
        for sharing in ("off", "auto"):
            assert not calls.call_count
            speed = SpeedSettings(sharing=sharing)
            trainer = preference_trainer(
                tmp_path, policy, random_pairs(8), "dpo", reference=reference, speed=speed
            )
            trainer.train()
    assert calls.call_count


def test_an_attention_that_reads_its_name_finds_that_of_transformers():
    """FlashAttention looks up its kernels by the name; under that of the engine it would find none."""
    seen = []

    def flash(module, query, key, value, attention_mask, **kwargs):
        seen.append(module.config._attn_implementation)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)

    with (
        patch.dict(ALL_ATTENTION_FUNCTIONS._global_mapping, {"flash_attention_2": flash}),
        patch.dict(
            ALL_MASK_ATTENTION_FUNCTIONS._global_mapping,
            {"flash_attention_2": ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]},
        ),
    ):
        model = tiny("llama")
        model.config._attn_implementation = "flash_attention_2"
        attach_engine(model)
        assert model._shares and not seen  # tried without it: here it could not run
        assert model.config._attn_implementation == "po_flash_attention_2"
        model(input_ids=torch.tensor([[5, 6, 7]]))
    assert set(seen) == {"flash_attention_2"}
    assert model.config._attn_implementation == "po_flash_attention_2"
