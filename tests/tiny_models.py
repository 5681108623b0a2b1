"""One tiny model of each architecture, with random weights and, where there is any, with dropout."""

import copy

import torch
from tiny_training import VOCABULARY
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MarianConfig,
    MBartConfig,
    MixtralConfig,
    Olmo2Config,
    OlmoeConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
)

from po.references.values import reference_values, with_values

DROPOUT = 0.3
SPREAD = 0.25  # of all matrices: each token then has its own distribution
WINDOW = 4  # shorter than nearly all rows of `random_pairs`
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": DROPOUT,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "dropout": DROPOUT,
    "attention_dropout": DROPOUT,
    "activation_dropout": DROPOUT,
    "encoder_layerdrop": DROPOUT,
    "decoder_layerdrop": DROPOUT,
}
DENSE = {
    "llama": lambda: LlamaConfig(**DECODER),
    "gemma2": lambda: Gemma2Config(
        **DECODER,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=WINDOW,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=4.0,
        attn_implementation="eager",
    ),
    "qwen3": lambda: Qwen3Config(**DECODER, head_dim=16),
    "phi3": lambda: Phi3Config(**DECODER, resid_pdrop=DROPOUT, embd_pdrop=DROPOUT),
    "olmo2": lambda: Olmo2Config(**DECODER),
}
MIXTURES = {
    "mixtral": lambda: MixtralConfig(
        **DECODER, num_local_experts=4, num_experts_per_tok=2, router_jitter_noise=0.1
    ),
    "qwen2_moe": lambda: Qwen2MoeConfig(
        **DECODER, **EXPERTS, moe_intermediate_size=24, shared_expert_intermediate_size=24
    ),
    "qwen3_moe": lambda: Qwen3MoeConfig(**DECODER, **EXPERTS, head_dim=16, moe_intermediate_size=24),
    "olmoe": lambda: OlmoeConfig(**DECODER, **EXPERTS),
}
SCALED = {
    "granite": lambda: GraniteConfig(**DECODER, logits_scaling=2.0),
    "cohere": lambda: CohereConfig(**DECODER, logit_scale=0.5),
    "granitemoe": lambda: GraniteMoeConfig(
        **DECODER, num_local_experts=4, num_experts_per_tok=2, logits_scaling=2.0
    ),
}
ENCODER_DECODERS = {
    "t5": lambda: T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
        dropout_rate=DROPOUT,
    ),
    "bart": lambda: BartConfig(**BART, decoder_start_token_id=2, forced_eos_token_id=None),
    "mbart": lambda: MBartConfig(**BART, forced_eos_token_id=None),
    "marian": lambda: MarianConfig(**BART, decoder_start_token_id=0, forced_eos_token_id=None),
}
CAUSAL = {**DENSE, **MIXTURES, **SCALED}
ALL = {**CAUSAL, **ENCODER_DECODERS}


def tiny(name, seed=0, **changes):
    config = ALL[name]()
    for attribute, value in changes.items():
        setattr(config, attribute, value)
    kind = AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else AutoModelForCausalLM
    torch.manual_seed(seed)
    model = kind.from_config(config, attn_implementation="eager" if name == "gemma2" else "sdpa")
    return sharpened(model)


def sharpened(model):
    """Larger matrices than fresh ones, so that a wrong position cannot go unseen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.requires_grad:  # Marian's positions are fixed, and not saved
                torch.nn.init.normal_(parameter, std=SPREAD)
    return model.eval()


def with_reference(rows, model, images=None):
    """The rows with the reference log-probabilities of a model."""
    found = reference_values(copy.deepcopy(model), rows, "fp32", images=images)
    return with_values(rows, found)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected, relative):
    """Gradients that are 0 but for rounding (biases of attention keys) are measured by the largest of all."""
    assert expected and found.keys() == expected.keys()
    rounding = 1e-7 * max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm() + rounding, name
