"""The last layer skips what no loss reads: values and gradients stay those of padded rows."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import MIXTURES, SCALED, tiny
from tiny_sharing import (
    COMPLETIONS,
    LONG_PROMPTS,
    assert_same,
    both_ways,
    candidates,
    tiny_gpt_oss,
    values_and_gradients,
)
from tiny_training import tiny_llama

from po.engine.forward import attach_engine, completion_values
from po.engine.packing import pack
from po.training.collate import Collator, text_part


def long_prompts(n=3):
    return text_part(Collator("ranked")(candidates(n, **LONG_PROMPTS)))


def last(model):
    return (
        model.get_base_model().model.layers[-1] if hasattr(model, "peft_config") else model.model.layers[-1]
    )


@contextmanager
def tokens_of(*modules):
    """Tokens that went through each module at its last call."""
    seen = [0] * len(modules)

    def note(place):
        return lambda module, args: seen.__setitem__(place, args[0].shape[-2])

    hooks = [module.register_forward_pre_hook(note(place)) for place, module in enumerate(modules)]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "phi3", "olmo2", "gpt_oss", *MIXTURES, *SCALED])
@pytest.mark.parametrize("short", [0, 256])
def test_values_and_gradients_are_those_of_padded_rows(name, short, monkeypatch):
    monkeypatch.setattr("po.engine.group_attention.SHORT", short)
    trimmed = []

    def noted(model):
        trimmed.append("_whole_forward" in last(model).__dict__)
        return model

    make = tiny_gpt_oss if name == "gpt_oss" else lambda: tiny(name)
    assert_same(both_ways(make, long_prompts(), asked=COMPLETIONS, change=noted))
    assert trimmed == [True, False]


def test_feed_forward_of_the_last_layer_sees_the_tokens_that_are_read():
    model, batch = attach_engine(tiny("llama")), long_prompts()
    row = pack(*(batch[name] for name in ("input_ids", "attention_mask", "completion_mask", "prompt_rows")))
    with tokens_of(model.model.layers[0].mlp, last(model).mlp) as seen:
        completion_values(model, batch)
    assert seen[0] == row.ids.shape[1]
    ends, prompts = len(batch["input_ids"]), len(row.groups)  # those are not read, of these the last token is
    assert seen[1] == batch["completion_mask"].sum() - ends + prompts < seen[0] / 2


@pytest.mark.parametrize("what", ["prompt", "router", "short prompts"])
def test_where_nearly_all_is_read_or_routers_are_asked_no_token_is_skipped(what):
    model = attach_engine(tiny("mixtral" if what == "router" else "llama"))
    batch = long_prompts()
    if what == "short prompts":
        batch = text_part(Collator("ranked")(candidates(3, prompt=(1, 3), completion=(20, 30))))
    asked = replace(COMPLETIONS, prompt=what == "prompt", router=what == "router")
    first = model.model.layers[0].self_attn.o_proj
    with tokens_of(first, last(model).self_attn.o_proj) as seen:
        values_and_gradients(model, batch, asked)
    assert seen[0] == seen[1] > 0


def checkpointed(reentrant):
    def change(model):
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        return model

    return change


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    found = both_ways(tiny_llama, long_prompts(), asked=COMPLETIONS, change=checkpointed(reentrant))
    assert_same(found)


def test_adapters():
    def make():
        torch.manual_seed(0)
        return get_peft_model(tiny_llama(), LoraConfig(target_modules="all-linear", init_lora_weights=False))

    found = both_ways(make, long_prompts(), asked=COMPLETIONS)
    assert_same(found)


class Stubborn(torch.nn.Module):
    """A feed-forward block that takes the trial's packed row whole, or not at all."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, states):
        if states.shape[:2] == (1, 7):
            raise ValueError("not so many")
        return self.plain(states)


def test_a_layer_that_does_not_bear_it_is_left_as_it_was():
    model, plain = tiny_llama(), attach_engine(tiny_llama(), sharing=False)
    last(model).mlp = Stubborn(last(model).mlp)
    attach_engine(model)
    assert model._shares and "_whole_forward" not in last(model).__dict__
    assert "forward" not in last(model).__dict__
    batch = long_prompts()
    found, expected = (completion_values(one, batch)[0]["logps"] for one in (model, plain))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


def test_a_forward_that_others_have_replaced_stays():
    model = tiny_llama()
    plain = last(model).forward
    last(model).forward = theirs = lambda *args, **kwargs: plain(*args, **kwargs)
    attach_engine(model)
    assert model._shares and last(model).forward is theirs
