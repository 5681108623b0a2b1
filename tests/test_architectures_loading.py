"""Models of all kinds: loaded by the class that their configuration needs, and without dropout."""

import copy

import pytest
import torch
from tiny_models import ALL, ENCODER_DECODERS, tiny, with_reference
from tiny_training import MODEL, preference_trainer, random_pairs
from tiny_vision import IMAGE, picture_pairs, pictures, processor, tiny_llava
from transformers import AutoModelForCausalLM, CLIPConfig, CLIPModel

from po.engine.forward import attach_engine, completion_logps
from po.engine.images import ImageTensors
from po.faults import InputFault
from po.models.loading import check_attention, disable_dropout, drops_out, load_model, model_class
from po.training.collate import Collator

pytestmark = pytest.mark.filterwarnings("ignore:.*changes the logits of its head")


@pytest.mark.parametrize("name", ["llama", "mixtral", *ENCODER_DECODERS, "llava"])
def test_a_folder_is_loaded_by_the_class_that_saved_it(tmp_path, name):
    model = tiny_llava() if name == "llava" else tiny(name)
    model.save_pretrained(tmp_path)
    found = load_model(str(tmp_path), MODEL)
    assert type(found) is type(model)
    assert found.config._attn_implementation == MODEL["attention"]
    saved = model.state_dict()
    assert all(torch.equal(weights, saved[key]) for key, weights in found.state_dict().items())
    assert load_model(str(tmp_path), MODEL | {"dtype": "bfloat16"}).dtype == torch.bfloat16


def test_a_model_that_writes_nothing_is_refused(tmp_path):
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=layers, vision_config=layers)).save_pretrained(tmp_path)
    with pytest.raises(InputFault, match="a model of type 'clip' writes no text that could be preferred"):
        load_model(str(tmp_path), MODEL)


def test_a_model_with_pictures_that_brings_its_own_code_is_loaded_by_what_it_names():
    config = CLIPConfig(auto_map={"AutoModelForCausalLM": "modeling_theirs.TheirModel"})
    assert model_class(config, "theirs") is AutoModelForCausalLM


def test_soft_capped_attention_falls_back_to_eager_with_a_warning(tmp_path):
    model = tiny("gemma2")
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="eager attention is used"):
        found = load_model(str(tmp_path), MODEL)
    assert found.config._attn_implementation == "eager"
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)
    assert check_attention(tiny("llama")).config._attn_implementation == "sdpa"


def scored(name):
    """A model as training has it, and a batch."""
    if name == "llava":
        images = ImageTensors.of(processor(), tiny_llava())
        return attach_engine(tiny_llava().train()), Collator(images=images)(picture_pairs(pictures(6), (1,)))
    rows = random_pairs(8)
    return attach_engine(tiny(name).train()), Collator(encoder_decoder=name in ENCODER_DECODERS)(rows)


@torch.no_grad()
@pytest.mark.parametrize("name", [*ALL, "llava"])
def test_without_dropout_a_model_in_training_answers_as_in_evaluation(name):
    model, batch = scored(name)
    assert drops_out(model)
    first, second = (completion_logps(model, batch)[0] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)  # so something was dropped
    disable_dropout(model)
    assert not drops_out(model)
    found = completion_logps(model, batch)[0]
    model.eval()
    assert torch.equal(found, completion_logps(model, batch)[0])


def test_the_noise_of_routers_goes_with_dropout_and_their_thresholds_stay():
    model = tiny("mixtral", attention_dropout=0.0)
    for layer in model.model.layers:
        assert layer.mlp.jitter_noise == 0.1
    assert drops_out(model)
    disable_dropout(model)
    assert [layer.mlp.jitter_noise for layer in model.model.layers] == [0.0, 0.0]
    threshold = torch.nn.Module()
    threshold.router_jitter_noise = 0.01  # Phi-MoE reads it in evaluation too
    disable_dropout(threshold)
    assert threshold.router_jitter_noise == 0.01


@pytest.mark.parametrize("name", ["bart", "phi3"])
def test_a_model_that_drops_out_is_not_compared_with_its_reference_at_the_start(tmp_path, name):
    model = tiny(name)
    rows = with_reference(random_pairs(8), model)
    trainer = preference_trainer(tmp_path, model, rows, "dpo")
    trainer._same_start = True
    trainer.train()
    assert trainer.state.global_step == 1
    off = [row | {"reference_logps": [value - 50 for value in row["reference_logps"]]} for row in rows]
    model = copy.deepcopy(model)
    disable_dropout(model)
    refusing = preference_trainer(tmp_path, model, off, "dpo")
    refusing._same_start = True
    with pytest.raises(InputFault, match="policy and reference differ"):
        refusing.train()


def test_a_picture_token_without_a_picture_is_refused_by_the_model():
    """So a row whose images were lost on the way cannot be learned from unnoticed."""
    model = attach_engine(tiny_llava())
    images = ImageTensors.of(processor(), model)
    rows = picture_pairs(pictures(4), (1,))
    rows[0]["prompt_ids"] = [token for token in rows[0]["prompt_ids"] if token != IMAGE]
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        completion_logps(model, Collator(images=images)(rows))
