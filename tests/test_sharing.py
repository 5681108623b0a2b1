"""Packed rows with shared prompts give what padded rows give: values and gradients, for each architecture."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_models import CAUSAL, MIXTURES, assert_same_gradients, gradients, tiny
from tiny_training import random_ids, random_pairs

from po.engine.forward import attach_engine, completion_values
from po.engine.token_values import Asked
from po.training.collate import Collator

SHARING = [name for name in CAUSAL if name not in ("granite", "cohere", "granitemoe")]
EVERYTHING = Asked(collision=True, entropy=True, tokens=True, prompt=True)


def both_ways(name, rows, form="paired", asked=EVERYTHING, **changes):
    asked = replace(asked, router=name in MIXTURES)
    batch = Collator(form)(rows)
    packed = attach_engine(tiny(name, **changes))
    plain = attach_engine(tiny(name, **changes), sharing=False)
    assert packed._shares and not plain._shares
    found = {}
    for kind, model in (("packed", packed), ("plain", plain)):
        values, _ = completion_values(model, batch, asked)
        loss = sum((value.double() * torch.linspace(0.5, 2, value.numel()).view_as(value)).sum()
                   for value in values.values() if value.is_floating_point())  # fmt: skip
        found[kind] = values, gradients(model, loss)
    return found


def assert_same(found, relative=1e-4):
    values, plain = found["packed"][0], found["plain"][0]
    assert values.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(values[name], value, rtol=1e-5, atol=1e-5, msg=name)
    assert_same_gradients(found["packed"][1], found["plain"][1], relative)


@pytest.mark.parametrize("name", SHARING)
def test_pairs(name):
    assert_same(both_ways(name, random_pairs(5)))


def candidates(n, seed=3):
    chance = random.Random(seed)
    return [
        {
            "prompt_ids": random_ids(chance, 3, 30),
            "candidates_ids": [random_ids(chance, 1, 12) for _ in range(chance.randint(2, 5))],
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("short", [0, 256])
def test_candidates(name, short, monkeypatch):
    monkeypatch.setattr("po.engine.group_attention.SHORT", short)
    assert_same(both_ways(name, candidates(4), "ranked"))
