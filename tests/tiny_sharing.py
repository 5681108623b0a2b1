"""A model's values and gradients from packed rows and from padded ones."""

import random
from dataclasses import replace
from unittest.mock import patch

import torch
from tiny_models import DECODER, WINDOW, assert_same_gradients, gradients, sharpened
from tiny_training import random_ids
from transformers import GptOssConfig, GptOssForCausalLM

from po.engine.forward import attach_engine, completion_values
from po.engine.packing import pack
from po.engine.token_values import Asked
from po.models.loading import disable_dropout
from po.training.collate import text_part

EVERYTHING = Asked(collision=True, entropy=True, tokens=True, prompt=True)
COMPLETIONS = replace(EVERYTHING, prompt=False)
LONG_PROMPTS = {"prompt": (20, 30), "completion": (1, 6)}


def tiny_gpt_oss(experts_per_token=2):
    """A layer with a window and one without; sinks between those that take nearly nothing and nearly all."""
    config = GptOssConfig(
        **DECODER, head_dim=16, num_local_experts=4, num_experts_per_tok=experts_per_token,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"], attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = sharpened(GptOssForCausalLM(config))
    with torch.no_grad():
        for layer, sinks in zip(model.model.layers, ([-2.0, 3.0], [1.0, 5.0]), strict=True):
            layer.self_attn.sinks.copy_(torch.tensor(sinks))
    disable_dropout(model)
    return model


def values_and_gradients(model, batch, asked=EVERYTHING):
    """Values of a batch, and the gradients of a sum in which each of them has a weight of its own."""
    values, _ = completion_values(model, batch, asked)
    parts = [value.double() for value in values.values() if value.is_floating_point()]
    loss = sum((part * torch.linspace(0.5, 2, part.numel()).view_as(part)).sum() for part in parts)
    return {name: value.detach() for name, value in values.items()}, gradients(model, loss)


def both_ways(make, batch, router=False, change=lambda model: model, asked=EVERYTHING):
    """What a model gives packed, and what its twin gives padded; ``change`` is done to both when attached."""
    asked, batch = replace(asked, router=router), text_part(batch)
    packed, plain = (attach_engine(make(), sharing=sharing) for sharing in (True, False))
    target = packed.get_base_model() if hasattr(packed, "get_base_model") else packed
    assert target._shares
    found = []
    for model, n_packed in ((packed, 1), (plain, 0)):
        with patch("po.engine.forward.pack", wraps=pack) as calls:
            found.append(values_and_gradients(change(model), batch, asked))
        assert calls.call_count == n_packed
    return found


def assert_same(found, relative=1e-4, absolute=2e-5):
    (values, slopes), (plain, plain_slopes) = found
    assert values.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(values[name], value, rtol=1e-5, atol=absolute, msg=name)
    assert_same_gradients(slopes, plain_slopes, relative)


def candidates(n, seed=3, prompt=(3, 30), completion=(1, 12)):
    """Rows with lists of two to five candidates."""
    chance = random.Random(seed)
    return [
        {
            "prompt_ids": random_ids(chance, *prompt),
            "candidates_ids": [random_ids(chance, *completion) for _ in range(chance.randint(2, 5))],
        }
        for _ in range(n)
    ]
