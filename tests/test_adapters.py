"""Adapters on tiny models: what is trained, the three references, what is refused."""

import pytest
import torch
from adapter_cells import trained_policy
from peft import LoraConfig
from tiny_models import tiny
from tiny_training import EOS, random_pairs, tiny_llama

from po.engine.forward import attach_engine, completion_logps
from po.engine.token_values import Asked
from po.faults import InputFault
from po.models.adapters import adapter_reference, with_adapter
from po.models.loading import disable_dropout
from po.models.merging import merged_copy
from po.references.sources import LiveReference
from po.training.collate import Collator

KINDS = ["off", "copy", "merged"]
SMALL = {"r": 4, "alpha": 8.0}


@pytest.fixture
def batch():
    return Collator()(random_pairs(6, seed=5))


def logps(model, batch):
    with torch.no_grad():
        return completion_logps(attach_engine(model), batch)[0]


def closed(rows):
    """Prompts as encoders get them, closed by EOS."""
    return [row | {"prompt_ids": [*row["prompt_ids"], EOS]} for row in rows]


def policy_of(settings=SMALL, **shape):
    return with_adapter(tiny_llama(**shape), settings, seed=1)


def disturb(model, seed=2):
    """Moves all that is trained, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["dpo", "tdpo1"])
def test_a_step_moves_the_policy_away_from_a_reference_that_stays(tmp_path, batch, kind, method):
    policy = policy_of()
    reference = adapter_reference(policy, kind)
    before = reference.values(batch, Asked())["logps"]
    assert torch.allclose(before, logps(policy, batch), atol=1e-5)
    trainer = trained_policy(tmp_path, policy, reference, method)
    after = reference.values(batch, Asked())["logps"]
    assert torch.equal(before, after)
    assert (logps(trainer.model.eval(), batch) - after).abs().max() > 1e-3


@pytest.mark.parametrize(
    "more",
    [
        {"rslora": True},
        {"dora": True},
        {"init": "gaussian"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
    ],
    ids=lambda more: next(iter(more)),
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_starts_as_its_reference_and_leaves_it(tmp_path, batch, kind, more):
    policy = policy_of(SMALL | more)
    base = logps(tiny_llama(), batch)
    reference = adapter_reference(policy, kind)
    trained_policy(tmp_path, policy, reference, max_steps=2)
    assert torch.allclose(reference.values(batch, Asked())["logps"], base, atol=1e-5)
    assert (logps(policy.eval(), batch) - base).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["copy", "merged"])
def test_the_reference_of_trained_adapters_is_what_they_are_now(tmp_path, batch, kind):
    policy = disturb(policy_of(SMALL | {"modules_to_save": ["lm_head"]}))
    start = logps(policy, batch)
    reference = adapter_reference(policy, kind)
    trained_policy(tmp_path, policy, reference)
    assert torch.allclose(reference.values(batch, Asked())["logps"], start, atol=1e-5)


def test_switching_trained_adapters_off_is_refused_at_the_first_step(tmp_path):
    policy = disturb(policy_of())
    with pytest.raises(InputFault, match="before the first step policy and reference differ by"):
        trained_policy(tmp_path, policy, adapter_reference(policy, "off"))


def test_adapters_that_change_the_frozen_weights_need_a_copy(tmp_path, batch):
    settings = LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj"], task_type="CAUSAL_LM")
    policy = policy_of(settings)
    base = logps(tiny_llama(), batch)
    assert torch.allclose(logps(policy, batch), base, atol=1e-4)
    reference = adapter_reference(policy, "copy")
    trained_policy(tmp_path, policy, reference)
    assert torch.allclose(reference.values(batch, Asked())["logps"], base, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_asking_the_reference_changes_nothing_about_the_policy(batch, kind):
    policy = disturb(policy_of()).train()
    next(p for p in policy.parameters() if p.requires_grad).requires_grad_(False)
    reference = adapter_reference(policy, kind)
    flags = [p.requires_grad for p in policy.parameters()]
    before = logps(policy, batch)
    reference.values(batch, Asked())
    assert [p.requires_grad for p in policy.parameters()] == flags
    assert policy.active_adapter == "default" and policy.training
    assert torch.equal(logps(policy, batch), before)


def test_only_adapters_are_trained(tmp_path):
    policy = policy_of()
    base = {name: p.clone() for name, p in policy.named_parameters() if not p.requires_grad}
    trained_policy(tmp_path, policy, adapter_reference(policy, "off"), max_steps=3)
    found = dict(policy.named_parameters())
    assert all(torch.equal(found[name], weights) for name, weights in base.items())
    assert all(".lora_" in name for name in set(found) - set(base))
    assert found["base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight"].abs().max() > 0


def test_a_moving_copy_mixes_the_weights_of_adapters():
    policy = disturb(policy_of())
    reference = adapter_reference(policy, "copy")
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.{}.weight"
    ours, theirs = (policy.get_parameter(name.format(of)) for of in ("reference_copy", "default"))
    with torch.no_grad():
        ours.fill_(1.0)
        theirs.fill_(2.0)
    reference.follow(0.6)
    assert torch.allclose(ours, torch.full_like(ours, 1.6))
    reference.follow(0.6)
    assert torch.allclose(ours, torch.full_like(ours, 1.84))
    assert torch.equal(theirs, torch.full_like(theirs, 2.0))


def test_a_moving_merged_reference_mixes_whole_weights():
    policy = disturb(policy_of(SMALL | {"dora": True, "modules_to_save": ["lm_head"]}))
    reference = adapter_reference(policy, "merged")
    before = {name: weights.clone() for name, weights in reference.model.named_parameters()}
    disturb(policy, seed=3)
    now = dict(merged_copy(policy).named_parameters())
    reference.follow(0.6)
    for name, weights in reference.model.named_parameters():
        assert torch.allclose(weights, 0.4 * before[name] + 0.6 * now[name], atol=1e-6), name
    assert not torch.allclose(before["lm_head.weight"], now["lm_head.weight"], atol=1e-3)


def test_the_same_seed_draws_the_same_adapters_and_nothing_from_the_random_numbers_of_others():
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    one, two, other = (with_adapter(tiny_llama(), SMALL, seed=seed).get_parameter(name) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    model = tiny_llama()
    expected = torch.random.get_rng_state()
    with_adapter(model, SMALL, seed=1)
    assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputing_layers_changes_no_gradient(tmp_path, use_reentrant):
    found = []
    for recompute in (False, True):
        policy = policy_of(SMALL | {"target_modules": ["q_proj", "lm_head"]})
        trained_policy(
            tmp_path,
            policy,
            adapter_reference(policy, "off"),
            max_steps=2,
            gradient_checkpointing=recompute,
            gradient_checkpointing_kwargs={"use_reentrant": use_reentrant},
        )
        found.append({name: p.detach() for name, p in policy.named_parameters() if p.requires_grad})
    for name, weights in found[0].items():
        assert torch.allclose(weights, found[1][name], atol=1e-6), name
    assert any("lora_B" in name and weights.abs().max() > 0 for name, weights in found[1].items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_train_under_bf16(tmp_path, kind, dtype):
    policy = with_adapter(tiny_llama().to(dtype), SMALL, seed=1)
    assert all(p.dtype == torch.float32 for p in policy.parameters() if p.requires_grad)
    trainer = trained_policy(tmp_path, policy, adapter_reference(policy, kind), bf16=True, max_steps=4)
    margins = [row["rewards/margins"] for row in trainer.state.log_history if "rewards/margins" in row]
    assert abs(margins[0]) < 0.02 and margins[-1] > margins[0]


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_decoders_have_the_same_references(tmp_path, name, kind):
    rows = closed(random_pairs(8))
    batch = Collator(encoder_decoder=True)(rows)
    policy = with_adapter(tiny(name), SMALL, seed=1)
    reference = adapter_reference(policy, kind)
    start = logps(policy.eval(), batch)
    disable_dropout(policy)
    trained_policy(tmp_path, policy, reference, rows=rows, gradient_checkpointing=True)
    assert torch.allclose(reference.values(batch, Asked())["logps"], start, atol=1e-5)
    assert (logps(policy.eval(), batch) - start).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["gemma2", "qwen3", "mixtral", "granite", "t5", "marian"])
def test_every_architecture_answers_the_same_with_its_adapters_merged(name):
    model = tiny(name)
    batch = Collator(encoder_decoder=model.config.is_encoder_decoder)(closed(random_pairs(6)))
    policy = disturb(with_adapter(model, SMALL, seed=1)).eval()
    start, off, merged = logps(tiny(name), batch), adapter_reference(policy, "off"), merged_copy(policy)
    assert torch.allclose(off.values(batch, Asked())["logps"], start, atol=1e-4)
    assert torch.allclose(logps(merged, batch), logps(policy, batch), atol=1e-4)
    assert (logps(policy, batch) - start).abs().max() > 0.3


def test_a_step_that_rounding_loses_is_seen_in_adapters_too(tmp_path):
    policy = disturb(policy_of()).to(torch.bfloat16)
    with pytest.raises(InputFault, match="the first step changed no weights: .* lost in torch.bfloat16"):
        trained_policy(tmp_path, policy, adapter_reference(policy, "copy"), learning_rate=1e-9)


def test_a_reference_of_its_own_may_stand_beside_adapters(tmp_path):
    policy = policy_of()
    other = LiveReference(attach_engine(tiny_llama().requires_grad_(False)))
    trainer = trained_policy(tmp_path, policy, other)
    assert trainer.state.log_history[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
