"""Which architectures share prompts, which do not and say so, and that none answers wrongly."""

import copy
import warnings

import pytest
import torch
from tiny_models import DECODER, sharpened, tiny
from tiny_sharing import COMPLETIONS, LONG_PROMPTS, assert_same, both_ways, candidates, values_and_gradients
from tiny_training import VOCABULARY, random_pairs, tiny_llama
from tiny_vision import tiny_gemma3, tiny_llava, tiny_qwen2_vl
from torch.distributed.utils import _apply_to_tensors
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from po.engine.attention import Segments
from po.engine.forward import attach_engine, completion_logps
from po.engine.packing import pack
from po.engine.sharing import let_share
from po.models.loading import disable_dropout
from po.training.collate import Collator

HEAD = {"head_dim": 16}
MIXED = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12,
    "num_key_value_heads": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "n_routed_experts": 4,
    "first_k_dense_replace": 1, **EXPERTS,
}  # fmt: skip
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
SMALL_STATES = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 16}
INDEXED = {"index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}

SHARING = {
    "mistral": {"sliding_window": 4},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1, **MIXED},
    "gemma3_text": {**HEAD, "query_pre_attn_scalar": 16, **MIXED},
    "phi": {"partial_rotary_factor": 0.5},
    "gpt_neox": {},
    "gpt2": OLD,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "ctrl": {**OLD, "dff": 48},
    "afmoe": {**HEAD, **EXPERTS, "sliding_window": 4},
    "deepseek_v3": LATENT,
    "gpt_oss": {**HEAD, **EXPERTS, **MIXED},
    "granite_swa": {**HEAD, **MIXED},
    "mimo_v2_flash": {
        **HEAD, **EXPERTS, **MIXED, "v_head_dim": 12, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
        "mlp_layer_types": ["dense", "sparse"],
    },
    "smollm3": {"no_rope_layers": [1, 0]},
    "gemma3n_text": {
        **HEAD, **MIXED, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
        "laurel_rank": 4, "num_kv_shared_layers": 0, "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
}  # fmt: skip
EAGER = {"ctrl", "gpt_oss", "granite_swa", "mimo_v2_flash"}
OWN = "has an attention of its own"
ALONE = {
    "bloom": ({"n_layer": 2, "n_head": 2}, OWN),
    "falcon": ({"multi_query": True, "new_decoder_architecture": False}, OWN),
    "stablelm": ({}, OWN),
    "mamba": ({"state_size": 8}, OWN),
    "falcon_h1": ({**SMALL_STATES, "mamba_d_ssm": 64}, OWN),
    "qwen3_next": ({**EXPERTS, **LINEAR, "linear_value_head_dim": 16,
                    "layer_types": ["linear_attention", "full_attention"]}, OWN),
    "lfm2": ({"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}, "has layers of conv"),
    "deepseek_v32": ({**LATENT, **INDEXED}, "has layers of indexed_attention"),
    "doge": ({"keep_window_size": 8}, "takes no packed rows"),
}  # fmt: skip


def built(name, more, attention="sdpa", seed=0):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(name, **DECODER | more)
    kind = {} if attention is None else {"attn_implementation": attention}
    model = sharpened(AutoModelForCausalLM.from_config(config, **kind))
    disable_dropout(model)
    return model


@pytest.mark.parametrize("name", SHARING)
def test_prompts_are_shared(name):
    attention = "eager" if name in EAGER else "sdpa"
    make = lambda: built(name, SHARING[name], attention)  # noqa: E731
    assert_same(both_ways(make, Collator("ranked")(candidates(4))))
    skipped = Collator("ranked")(candidates(3, **LONG_PROMPTS))  # by the last layer, which most of them allow
    assert_same(both_ways(make, skipped, asked=COMPLETIONS))


@pytest.mark.parametrize("name", ALONE)
def test_others_are_padded_after_one_warning(name):
    more, reason = ALONE[name]
    model = built(name, more, None)
    expected, expected_gradients = values_and_gradients(
        attach_engine(built(name, more, None), sharing=False), Collator()(random_pairs(5))
    )
    attention = model.config._attn_implementation
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        attach_engine(model)
    (warning,) = [one for one in told if issubclass(one.category, UserWarning)]
    assert f"{type(model).__name__} " in str(warning.message) and reason in str(warning.message)
    assert warning.filename == __file__
    assert not model._shares and model.config._attn_implementation == attention
    values, slopes = values_and_gradients(model, Collator()(random_pairs(5)))
    assert_same([(values, slopes), (expected, expected_gradients)], 1e-6)


def test_a_cap_that_sdpa_leaves_out_is_no_reason_to_differ_from_the_padded_rows():
    torch.manual_seed(0)
    more = {**HEAD, "attn_logit_softcapping": 3.0, "attention_dropout": 0.0}
    config = AutoConfig.for_model("gemma2", **DECODER | more)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")  # small weights: not felt
    with pytest.warns(UserWarning, match="has a cap on its scores, which sdpa leaves out"):
        attach_engine(model)
    assert not model._shares and model.config._attn_implementation == "sdpa"


class Position(LlamaForCausalLM):
    """Reads positions off the row: what a model does that is not told of any."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.forward
        self.model.forward = lambda *a, position_ids=None, **k: forward(*a, **k)


class Leak(LlamaForCausalLM):
    """Each token also has something of the one before it in the row."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.layers[0].forward
        self.model.layers[0].forward = lambda x, *a, **k: forward(x + 0.1 * x.roll(1, dims=1), *a, **k)


@pytest.mark.parametrize("kind", [Position, Leak])
def test_models_that_heed_their_neighbours_in_a_row_are_found_out(kind):
    torch.manual_seed(0)  # fresh weights, the hardest to tell
    model = kind(tiny_llama().config)
    with pytest.warns(UserWarning, match=f"{kind.__name__} (answers otherwise|takes no packed rows)"):
        attach_engine(model)
    assert not model._shares


@pytest.mark.parametrize("make", [tiny_llava, lambda: tiny_gemma3()[0], lambda: tiny_qwen2_vl()[0]])
def test_texts_alone_are_packed_in_models_that_read_pictures(make):
    def quiet():
        model = make()
        disable_dropout(model)
        return model

    batch = Collator()(random_pairs(5))
    batch["input_ids"][(batch["input_ids"] < 8) & (batch["attention_mask"] > 0)] += 8  # no mark of a picture
    assert_same(both_ways(quiet, {name: value for name, value in batch.items() if name != "prompt_rows"}))


def test_the_attention_of_what_sees_pictures_stays_as_it_was():
    model = tiny_llava()
    model.config._attn_implementation = {"text_config": "eager", "vision_config": "sdpa"}
    attach_engine(model)
    assert model._shares
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert model.config.text_config._attn_implementation == "po_eager"


def test_which_modules_are_in_training_stays_as_it_was():
    model = tiny("llama").train()
    model.model.layers[0].eval()
    assert let_share(model)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes[""] and modes["model.layers.1"] and not modes["model.layers.0"]


def test_an_attention_set_after_attaching_is_refused():
    model = attach_engine(tiny("llama"))
    model.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match="was set anew after attach_engine"):
        completion_logps(model, Collator()(random_pairs(2)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral"])
def test_generation_goes_on_as_before(name):
    model, attached = tiny(name), attach_engine(tiny(name))
    assert attached._shares
    completion_logps(attached, Collator()(random_pairs(3)))
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row, empty in enumerate((0, 2, 5, 7)):
        ids[row, :empty], mask[row, :empty] = 0, 0
    how = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 12, "pad_token_id": 0}
    for more in ({}, {"num_beams": 2}, {"use_cache": False}):
        expected = model.generate(ids, **how, **more)
        assert torch.equal(attached.generate(ids, **how, **more), expected)
    assert len(set(expected[:, -1].tolist())) > 1
    scores = [m(input_ids=ids, attention_mask=mask).logits for m in (attached, model)]
    assert torch.equal(*scores)


def test_what_is_saved_names_no_attention_of_ours(tmp_path):
    model = attach_engine(tiny("llama"))
    model.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.glob("*.json") if "po_" in path.read_text()]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    batch = Collator()(random_pairs(3))
    torch.testing.assert_close(
        completion_logps(attach_engine(loaded.eval()), batch)[0], completion_logps(model, batch)[0]
    )


def test_a_copy_shares_prompts_too():
    model = attach_engine(tiny("llama"))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.model.layers[0].self_attn.q_proj.weight.mul_(-1)
    plain = attach_engine(tiny("llama"), sharing=False)
    with torch.no_grad():
        plain.model.layers[0].self_attn.q_proj.weight.mul_(-1)
    batch = Collator()(random_pairs(3))
    assert_same([values_and_gradients(one, batch) for one in (copied, plain)])
    assert (completion_logps(copied, batch)[0] - completion_logps(model, batch)[0]).abs().max() > 0.1


def test_masks_are_made_once_although_fsdp_copies_the_inputs_of_layers():
    batch = Collator()(random_pairs(3))
    row = pack(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], batch["prompt_rows"])
    segments, made = Segments(row, 4), []
    for _ in range(3):
        (layer,) = _apply_to_tensors(lambda tensor: tensor.clone(), (segments,))
        layer.once("mask", lambda: made.append(1) or torch.zeros(1))
    assert layer.window == 4 and layer.row.groups == row.groups
    assert len(made) == 1
