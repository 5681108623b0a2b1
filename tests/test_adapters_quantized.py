"""Adapters beside weights in 4 and 8 bits: training, references, what is published, what is refused."""

import sys

import pytest
import torch
from adapter_cells import adapter_cell, experiment, trained
from peft import PeftModel
from tiny_training import MODEL, random_pairs, read_log, tiny_llama
from transformers import LlamaForCausalLM

from po import train
from po.engine.forward import attach_engine, completion_logps
from po.engine.token_values import Asked
from po.faults import InputFault
from po.models.adapters import adapter_reference, with_adapter
from po.models.loading import load_model
from po.models.quantize import QUANTIZATIONS, check_hardware, is_quantized
from po.reference import weights_digest
from po.training.collate import Collator


def works(kind):
    try:
        check_hardware(kind, "cpu")
    except InputFault:
        return False
    return True


KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not works(kind), reason=f"no kernels for {kind} here"))
    for kind in QUANTIZATIONS
]
CLOSE = {"4bit": 1e-4, "8bit": 0.1}  # 8 bits: activations are rounded too, in the quantized model alone


@pytest.fixture
def root(tmp_path):
    return experiment(tmp_path / "runs")


def logps(model):
    batch = Collator()(random_pairs(6, seed=5))
    with torch.no_grad():
        return completion_logps(attach_engine(model.eval()), batch)[0]


def quantized(root, kind, **more):
    return load_model(str(root / "base"), MODEL | {"quantization": kind, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_quantized_while_it_is_loaded(root, kind):
    model = quantized(root, kind)
    assert is_quantized(model) and not is_quantized(tiny_llama())
    gap = (logps(model) - logps(tiny_llama())).abs().max()
    assert 1e-4 < gap < 3
    assert weights_digest(model) == weights_digest(quantized(root, kind)) != weights_digest(tiny_llama())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reference", ["off", "copy", "merged"])
def test_every_reference_of_quantized_weights_is_the_start(root, kind, reference):
    policy = with_adapter(quantized(root, kind), {"r": 4, "dora": kind == "4bit"}, seed=1)
    start = logps(policy)
    found = adapter_reference(policy, reference).values(Collator()(random_pairs(6, seed=5)), Asked())["logps"]
    assert torch.allclose(found, start, atol=CLOSE[kind] if reference == "merged" else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["dpo", "tr_dpo"])
def test_what_is_published_is_the_quantized_base_in_full_size_with_its_adapter(root, kind, method):
    adapter = {"reference": "copy"}
    sft = trained(adapter_cell(root, "sft", "sft", adapter=adapter, quantization=kind))
    folder = trained(adapter_cell(root, "below", method, sft, adapter=adapter, quantization=kind))
    margins = [row["rewards/margins"] for row in read_log(folder) if "loss" in row]
    assert margins[0] == pytest.approx(0, abs=CLOSE[kind] / 10) and margins[-1] > 10 * margins[0]
    whole = LlamaForCausalLM.from_pretrained(folder / "model")
    assert not is_quantized(whole) and not hasattr(whole.config, "quantization_config")
    policy = PeftModel.from_pretrained(quantized(root, kind), folder / "model" / "adapter")
    assert torch.allclose(logps(whole), logps(policy), atol=CLOSE[kind])
    assert (logps(whole) - logps(LlamaForCausalLM.from_pretrained(sft / "model"))).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_the_type_of_all_that_is_not_quantized(root, kind):
    policy = with_adapter(quantized(root, kind, dtype="bfloat16"), {"r": 4}, seed=1)
    assert policy.get_base_model().lm_head.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in policy.parameters() if p.requires_grad)
    reference = adapter_reference(policy, "merged")
    assert {p.dtype for p in reference.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_without_bitsandbytes_the_refusal_says_what_is_needed(root, kind, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert train.main([str(adapter_cell(root, "sft", "sft", quantization=kind))]) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: quantization: {kind} does not work on this machine (")
    assert "an NVIDIA GPU of compute capability" in error and "adapters work without it" in error


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_computes_something_else_is_refused(kind, monkeypatch):
    import bitsandbytes.functional as functional

    name = "dequantize_4bit" if kind == "4bit" else "int8_vectorwise_dequant"
    right = getattr(functional, name)
    monkeypatch.setattr(functional, name, lambda *given: right(*given) + 1)
    with pytest.raises(InputFault, match=f"quantization: {kind} gives wrong values on this machine"):
        check_hardware(kind, "cpu")
