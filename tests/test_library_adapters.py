"""Adapters as a library: what is trained, what the reference is, what is saved."""

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_library import library_trainer, text_pairs, train_logs, word_tokenizer
from tiny_training import random_pairs, tiny_llama
from transformers import BitsAndBytesConfig

from po.faults import InputFault
from po.models.quantize import check_hardware

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def trained_adapter():
    """A model with adapters that change it already."""
    torch.manual_seed(4)
    model = get_peft_model(tiny_llama(), LoraConfig(**LORA))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def weights(model, name):
    return {key: value.clone() for key, value in model.named_parameters() if name in key}


def changed(before, after):
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("stored", [False, True])
def test_new_adapters_are_trained_against_the_model_without_them(tmp_path, stored):
    trainer = library_trainer(
        tmp_path, random_pairs(8), peft_config=LoraConfig(**LORA), precompute_ref_log_probs=stored
    )
    base = weights(trainer.model, "base_layer")
    logs = train_logs(trainer)
    assert abs(logs[0]["logratio/chosen"]) < 1e-5 < abs(logs[1]["logratio/chosen"])
    assert base and not changed(base, weights(trainer.model, "base_layer"))
    said = "asked before training" if stored else "without its adapters"
    assert said in trainer.reference_choice.description


def test_trained_adapters_are_trained_on_against_a_copy_of_them(tmp_path):
    trainer = library_trainer(tmp_path, random_pairs(8), model=trained_adapter())
    before = weights(trainer.model, ".default."), weights(trainer.model, ".reference_copy.")
    logs = train_logs(trainer)
    assert abs(logs[0]["logratio/chosen"]) < 1e-5 < abs(logs[1]["logratio/chosen"])
    assert changed(before[0], weights(trainer.model, ".default."))
    assert before[1] and not changed(before[1], weights(trainer.model, ".reference_copy."))


def test_a_moving_reference_of_adapters_follows_them(tmp_path):
    trainer = library_trainer(
        tmp_path, random_pairs(8), "tr_dpo", peft_config=LoraConfig(**LORA), sync_steps=2, sync_mix=1.0
    )
    trainer.train()
    policy, reference = weights(trainer.model, ".default."), weights(trainer.model, ".reference_copy.")
    assert not changed(
        {name.replace(".default.", "."): value for name, value in policy.items()},
        {name.replace(".reference_copy.", "."): value for name, value in reference.items()},
    )


def test_a_method_without_reference_trains_adapters(tmp_path):
    trainer = library_trainer(tmp_path, random_pairs(8), "simpo", peft_config=LoraConfig(**LORA))
    assert len(train_logs(trainer)) == 2 and trainer.reference is None


def test_adapters_alone_are_saved_with_a_card_that_says_so(tmp_path):
    trainer = library_trainer(tmp_path, random_pairs(8), peft_config=LoraConfig(**LORA))
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["library_name"] == "peft" and "lora" in header["tags"]
    assert "Reference: the model without its adapters." in card
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "saved"))
    ids = torch.tensor([[5, 6, 7]])
    trainer.model.eval()
    assert torch.allclose(again.eval()(ids).logits, trainer.model(ids).logits, atol=1e-6)


def test_samples_of_the_reference_are_those_of_the_model_without_adapters(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "generate_during_eval": True, "learning_rate": 0.1}
    trainer = library_trainer(
        tmp_path,
        text_pairs(),
        eval_rows=text_pairs(4, seed=7),
        processing_class=word_tokenizer(),
        peft_config=LoraConfig(**LORA),
        **settings,
    )
    trainer.train()
    table = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "SampleTable")
    lines = (tmp_path / "out" / "samples" / "step-2.jsonl").read_text().splitlines()
    found = [yaml.safe_load(line) for line in lines]
    assert [row["reference"] for row in found] == table.sample(tiny_llama())
    assert any(row["policy"] != row["reference"] for row in found)


def test_adapters_upon_adapters_are_refused(tmp_path):
    with pytest.raises(InputFault, match="has adapters already"):
        library_trainer(tmp_path, random_pairs(4), model=trained_adapter(), peft_config=LoraConfig(**LORA))


def test_quantization_is_for_models_that_are_loaded_here(tmp_path):
    with pytest.raises(InputFault, match="quantization_config is for loading a model"):
        library_trainer(tmp_path, random_pairs(4), quantization_config=BitsAndBytesConfig(load_in_4bit=True))


def test_quantized_weights_are_trained_by_adapters_only(tmp_path):
    try:
        check_hardware("4bit", "cpu")
    except InputFault as fault:
        pytest.skip(str(fault))
    tiny_llama(intermediate_size=128).save_pretrained(tmp_path / "start")  # blocks of 64 weights
    word_tokenizer().save_pretrained(tmp_path / "start")
    given = {
        "model": str(tmp_path / "start"),
        "quantization_config": BitsAndBytesConfig(load_in_4bit=True),
        "max_steps": 1,
    }
    with pytest.raises(InputFault, match="quantized weights cannot be trained; give a peft_config"):
        library_trainer(tmp_path, random_pairs(4), **given)
    trainer = library_trainer(tmp_path, random_pairs(4), **given, peft_config=LoraConfig(**LORA))
    before = weights(trainer.model, "lora_B")
    assert abs(train_logs(trainer)[0]["logratio/chosen"]) < 1e-3
    assert changed(before, weights(trainer.model, "lora_B"))
