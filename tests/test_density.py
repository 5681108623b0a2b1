"""Weights of undesirable completions by their prompts (underlying distribution matching)."""

import logging

import numpy as np
import pytest
import torch
from tiny_models import tiny
from tiny_training import tiny_llama

from po.faults import InputFault
from po.methods import METHODS
from po.references.density import (
    balanced_sample,
    density_ratio,
    held_out_auc,
    prompt_vectors,
    with_density_ratios,
)

EARLY, LATE = range(3, 10), range(40, 47)  # token ids of two kinds of prompts


def prompt(generator, ids):
    return [int(token) for token in generator.choice(ids, generator.integers(2, 6))]


def labelled(wanted_ids, unwanted_ids, n=40, seed=0):
    """n desirable completions to prompts of some tokens, n undesirable ones to prompts of others."""
    generator = np.random.default_rng(seed)
    kinds = [(True, wanted_ids), (False, unwanted_ids)] * n
    return [
        {"prompt_ids": prompt(generator, list(ids)), "completion_ids": [5, 2], "desirable": wanted}
        for wanted, ids in kinds
    ]


def weights(rows, seed=0, **params):
    values = METHODS["bco"].check_params({"udm": True, **params})
    return with_density_ratios(rows, tiny_llama(), values, seed)


def test_the_worked_weights():
    found = density_ratio(np.array([0.5, 0.9, 0.2]), 0.5, 10.0)
    assert found == pytest.approx([0.99999998, 8.99999910, 0.5], abs=1e-8)
    assert density_ratio(np.array([0.0, 1.0]), 0.5, 10.0) == pytest.approx([0.5, 10.0])


def test_desirable_completions_weigh_1_and_undesirable_ones_by_their_prompts():
    """The last completion is undesirable, but its prompt is of the kind that desirable ones answer."""
    rows = labelled(EARLY, LATE)
    rows.append({"prompt_ids": list(EARLY), "completion_ids": [6, 2], "desirable": False})
    found = weights(rows)
    assert all(row["density_ratio"] == [1.0] for row in found if row["desirable"])
    undesirable = [row["density_ratio"][0] for row in found if not row["desirable"]]
    assert max(undesirable[:-1]) < 1 < undesirable[-1]
    assert [{k: v for k, v in row.items() if k != "density_ratio"} for row in found] == rows


def test_alike_prompts_weigh_about_1_and_cannot_be_told_apart(caplog):
    with caplog.at_level(logging.WARNING):
        found = weights(labelled(EARLY, EARLY, n=200), prompt_sample_size=200)
    undesirable = np.array([row["density_ratio"][0] for row in found if not row["desirable"]])
    assert np.median(undesirable) == pytest.approx(1, abs=0.25)
    (line,) = [record.message for record in caplog.records if "udm" in record.message]
    auc = float(line.split("held-out prompts ")[1].split(";")[0])
    assert auc == pytest.approx(0.5, abs=0.1)


def test_prompts_of_two_kinds_are_told_apart_on_held_out_prompts():
    vectors = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat([[0.0], [3.0]], 30, axis=0)
    apart = balanced_sample(np.arange(30), np.arange(30, 60), 20, seed=0)
    assert held_out_auc(vectors, apart) > 0.95


def test_a_prompt_with_both_kinds_of_completions_does_not_leak_into_its_fold():
    """Each prompt stands on both sides: a split by completions would find the opposite label beside it."""
    vectors = np.random.default_rng(0).normal(size=(40, 30))
    both = balanced_sample(np.arange(40), np.arange(40), 40, seed=0)
    assert held_out_auc(vectors, both) == pytest.approx(0.5, abs=0.05)


def test_the_auc_of_too_few_prompts_is_not_made_up():
    few = balanced_sample(np.arange(4), np.arange(4, 40), 20, seed=0)
    assert held_out_auc(np.random.default_rng(0).normal(size=(40, 3)), few) is None


def test_both_kinds_are_drawn_equally_often_and_without_replacement():
    sample = balanced_sample(np.arange(7), np.arange(7, 100), 50, seed=3)
    assert sorted(sample.prompts[sample.wanted]) == list(range(7))
    unwanted = sample.prompts[~sample.wanted]
    assert len(unwanted) == len(set(unwanted.tolist())) == 7 and min(unwanted) >= 7
    again = balanced_sample(np.arange(7), np.arange(7, 100), 50, seed=3)
    assert np.array_equal(again.prompts, sample.prompts)
    other = balanced_sample(np.arange(7), np.arange(7, 100), 50, seed=4)
    assert not np.array_equal(other.prompts, sample.prompts)


def test_the_same_seed_gives_the_same_weights_to_the_last_bit():
    rows = labelled(range(3, 20), range(12, 30))
    one, again = (weights(rows, prompt_sample_size=10) for _ in range(2))
    other = weights(rows, seed=1, prompt_sample_size=10)
    assert one == again
    assert one != other


def test_pairs_get_a_weight_for_each_completion():
    generator = np.random.default_rng(0)
    rows = [
        {"prompt_ids": prompt(generator, list(EARLY)), "chosen_ids": [5, 2], "rejected_ids": [6, 2]}
        for _ in range(12)
    ]
    found = weights(rows)
    assert all(row["density_ratio"][0] == 1.0 and len(row["density_ratio"]) == 2 for row in found)
    assert all(0.5 <= row["density_ratio"][1] <= 10 for row in found)


@pytest.mark.parametrize("kept", [True, False])
def test_completions_of_one_kind_only_are_refused(kept):
    rows = [row for row in labelled(EARLY, LATE) if row["desirable"] is kept]
    missing = "undesirable" if kept else "desirable"
    with pytest.raises(InputFault, match=f"no completion is {missing}; set udm to false"):
        weights(rows)


def test_reversed_bounds_are_refused():
    with pytest.raises(InputFault, match="min_density_ratio 3 is above max_density_ratio 2"):
        weights(labelled(EARLY, LATE), min_density_ratio=3.0, max_density_ratio=2.0)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_prompt_is_the_mean_of_its_last_hidden_states_whatever_stands_beside_it(architecture):
    model = tiny(architecture)
    prompts = [[5, 9, 11, 20], [7], [3, 4, 8, 8, 9, 30, 31]]
    found = prompt_vectors(model, prompts)
    body = model.get_encoder() if architecture == "t5" else model.model
    for vector, ids in zip(found, prompts, strict=True):
        with torch.no_grad():
            alone = body(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        assert vector == pytest.approx(alone.numpy(), abs=1e-5)
