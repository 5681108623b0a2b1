"""What becomes of a model that is attached: pickled, copied, attached anew, given odd weights or adapters."""

import copy
import gc
import io

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from tiny_sharing import COMPLETIONS, LONG_PROMPTS, assert_same, candidates, values_and_gradients
from tiny_training import tiny_llama
from transformers import LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from po.engine.forward import attach_engine, completion_values
from po.engine.last_layer import restore_last_layer
from po.faults import InputFault
from po.library.config import PreferenceConfig
from po.library.start import load_policy
from po.models.loading import disable_dropout, drops_out
from po.training.collate import Collator, text_part


def batch():
    return text_part(Collator("ranked")(candidates(3, **LONG_PROMPTS)))


def answers(model):
    return values_and_gradients(model, batch(), COMPLETIONS)


def is_trimmed(model):
    return "_whole_forward" in model.model.layers[-1].__dict__


class Gate(LlamaForCausalLM):
    """Each token also has something of the one before it, as soon as a gate opens that begins at 0."""

    def __init__(self, config):
        super().__init__(config)
        forward, self.model.gate = self.model.layers[0].forward, torch.nn.Parameter(torch.zeros(()))
        self.model.layers[0].forward = lambda x, *a, **k: forward(
            x + self.model.gate * x.roll(1, dims=1), *a, **k
        )


@pytest.mark.parametrize("sharing", [True, False])
def test_a_pickled_model_can_be_attached_again(sharing):
    file = io.BytesIO()
    torch.save(attach_engine(tiny_llama(), sharing=sharing), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    attach_engine(loaded, sharing=sharing)
    assert loaded._shares == sharing
    assert_same([answers(loaded), answers(attach_engine(tiny_llama(), sharing=sharing))])


@pytest.mark.parametrize("change", [copy.deepcopy, lambda config: config])
def test_a_model_of_an_attached_model_s_configuration_is_tried_too(change):
    config = change(attach_engine(tiny_llama()).config)
    plain = attach_engine(LlamaForCausalLM(config))
    assert plain._shares and is_trimmed(plain)
    with torch.no_grad():
        leaking = Gate(config)
        leaking.model.gate.fill_(0.1)
    with pytest.warns(UserWarning, match="Gate answers otherwise"):
        attach_engine(leaking)
    assert not leaking._shares
    assert_same([answers(plain), answers(attach_engine(copy.deepcopy(plain), sharing=False))])


def test_a_gate_that_begins_at_0_is_looked_behind_and_stays_0():
    model = Gate(tiny_llama().config)
    with pytest.warns(UserWarning, match="Gate answers otherwise"):
        attach_engine(model)
    assert not model._shares and model.model.gate.item() == 0


def test_sharing_can_be_turned_off_and_on_again():
    model = attach_engine(tiny_llama(), sharing=False)
    assert not model._shares
    off = answers(model)
    assert attach_engine(model)._shares and is_trimmed(model)
    assert_same([answers(model), off])
    assert not attach_engine(model, sharing=False)._shares


def test_a_norm_without_epsilon_has_gradients_behind_a_trimmed_layer():
    def make():
        config = tiny_llama().config
        config.rms_norm_eps = 0.0
        torch.manual_seed(0)
        return LlamaForCausalLM(config)

    trimmed, whole = attach_engine(make()), attach_engine(make())
    restore_last_layer(whole)
    assert is_trimmed(trimmed) and not is_trimmed(whole)
    found = answers(trimmed)
    assert all(slope.isfinite().all() for slope in found[1].values())
    assert_same([found, answers(whole)])


def test_a_step_leaves_no_tensor_to_the_garbage_collector():
    model, rows = attach_engine(tiny_llama()), batch()
    assert is_trimmed(model)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            completion_values(model, rows, COMPLETIONS)[0]["logps"].sum().backward()
        found = gc.collect()
    finally:
        gc.enable()
    assert found == 0


def test_a_forward_that_others_took_before_is_found_out():
    model = tiny_llama()
    plain = model.forward
    model.forward = lambda *a, **k: plain(*a, **{n: v for n, v in k.items() if n in {"input_ids"}})
    attached = attach_engine(model)
    attached.forward = lambda *a, completion_mask=None, asked=None, **k: plain(*a, **k)
    rows = {name: value for name, value in batch().items() if name != "prompt_rows"}
    with pytest.raises(TypeError, match="something had taken its forward before attach_engine"):
        completion_values(attached, rows)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "PREFIX_TUNING lengthens prompts"),
        (LoraConfig(task_type="CAUSAL_LM", alora_invocation_tokens=[3]), "alora_invocation_tokens"),
    ],
)
def test_adapters_that_move_or_mark_tokens_are_refused_on_a_ready_model_too(tmp_path, config, reason):
    args = PreferenceConfig(output_dir=str(tmp_path), method="simpo", use_cpu=True)
    model = get_peft_model(tiny_llama(), config)
    with pytest.raises(InputFault, match=reason):
        load_policy(model, args, None, None)


def test_a_prefix_before_a_batch_is_refused():
    model = attach_engine(
        get_peft_model(tiny_llama(), PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    )
    rows = {name: value for name, value in batch().items() if name != "prompt_rows"}
    with pytest.raises(ValueError, match="more than the batch has"):
        completion_values(model, rows)


def test_routers_that_draw_are_told_of():
    from transformers import PhimoeConfig, PhimoeForCausalLM

    config = PhimoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0,
    )  # fmt: skip
    model = PhimoeForCausalLM(config)
    with pytest.warns(UserWarning, match="draws experts in training"):
        disable_dropout(model)
    assert drops_out(model)


def test_a_plain_call_leaves_the_name_of_the_attention_to_other_threads(monkeypatch):
    model, names = attach_engine(tiny_llama()), []
    function = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def looking(module, *arguments, **more):
        names.append(model.config._attn_implementation)
        return function(module, *arguments, **more)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", looking)
    model(input_ids=torch.arange(3, 9).unsqueeze(0))
    assert set(names) == {"po_sdpa"}
