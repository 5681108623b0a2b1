"""Adapters that cannot be: unknown words, modules that are not there, tied embeddings, prompt tuning."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from tiny_models import tiny
from tiny_training import random_pairs, tiny_llama

from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.models.adapter_settings import INITIAL, REFERENCES, AdapterSettings
from po.models.adapters import adapter_reference, with_adapter
from po.models.merging import merged_copy
from po.training.collate import Collator


def refusal(settings, model=None):
    with pytest.raises(InputFault) as fault:
        with_adapter(model or tiny_llama(), settings)
    return str(fault.value)


def test_an_unknown_word_is_answered_with_the_nearest():
    assert refusal({"dropuot": 0.1}).startswith(
        "an adapter has no setting 'dropuot'; did you mean 'dropout'?"
    )
    assert refusal({"reference": "copied"}) == (
        "adapter.reference cannot be 'copied'; did you mean 'copy'? It may be: off, copy, merged."
    )
    assert refusal({"init": "pissa"}) == ("adapter.init cannot be 'pissa'. It may be: kaiming, gaussian.")


@pytest.mark.parametrize("place", ["target_modules", "modules_to_save"])
def test_a_module_that_is_not_there_is_answered_with_the_nearest(place):
    message = refusal({place: ["q_proj", "v_porj"]})
    assert message.startswith(
        f"adapter.{place}: the model has no module 'v_porj'; did you mean 'v_proj'? It has: "
    )
    assert "down_proj, embed_tokens, gate_proj" in message


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_low_rank_adapters_of_tied_embeddings_are_refused(name):
    message = refusal({"target_modules": ["q_proj", name]}, tiny_llama(tie_word_embeddings=True))
    assert "and an adapter there would part them; leave it out" in message
    assert "modules_to_save" in message


def test_tied_embeddings_of_an_encoder_decoder_are_refused_whichever_way():
    assert "lm_head" in refusal({"target_modules": ["q"], "modules_to_save": ["lm_head"]}, tiny("t5"))
    assert "shared" in refusal({"target_modules": ["q", "shared"]}, tiny("t5"))


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("own", [True, False])
def test_tied_embeddings_that_are_trained_whole_stay_tied(name, own):
    settings = {"target_modules": ["q_proj"], "modules_to_save": [name]}
    settings = LoraConfig(**settings, task_type="CAUSAL_LM") if own else settings
    policy = with_adapter(tiny_llama(tie_word_embeddings=True), settings)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    merged = merged_copy(policy)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert not torch.equal(merged.lm_head.weight, tiny_llama(tie_word_embeddings=True).lm_head.weight)
    batch = Collator()(random_pairs(4))
    with torch.no_grad():
        ours, theirs = (completion_logps(attach_engine(model), batch)[0] for model in (policy, merged))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_adapters_upon_adapters_and_prompts_as_adapters_are_refused():
    assert "has adapters already" in refusal({}, with_adapter(tiny_llama(), {}))
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    assert "PROMPT_TUNING lengthens prompts" in refusal(prompts)


def test_a_reference_that_is_none_is_refused():
    with pytest.raises(InputFault, match="no reference 'of' of adapters; did you mean 'off'?"):
        adapter_reference(with_adapter(tiny_llama(), {}), "of")
    with pytest.raises(InputFault, match="no adapters that could be switched off"):
        adapter_reference(tiny_llama(), "off")


def test_merged_weights_cannot_follow_a_policy_that_is_sharded(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    policy = with_adapter(tiny_llama(), {})
    reference = adapter_reference(policy, "merged")
    next(policy.parameters()).ds_id = 0  # DeepSpeed's mark
    with pytest.raises(InputFault, match="spread over processes; take adapter.reference: copy"):
        reference.follow(0.5)


def test_the_defaults_are_words_that_are_allowed():
    settings = AdapterSettings.of({})
    assert settings.init in INITIAL and settings.reference in REFERENCES
    config = settings.config(encoder_decoder=False)
    assert (config.r, config.lora_alpha, config.bias) == (16, 32.0, "none")
