"""Rules that weigh tokens: LD-DPO's shared length, SamPO's draw."""

import pytest
import torch
from worked_inputs import CHOSEN_LENGTH, REJECTED_LENGTH, SUMMED

from po.methods import METHODS
from po.methods.logp_rules import TOKEN_RULES, sampled, shared_length

LENGTHS = (CHOSEN_LENGTH.long(), REJECTED_LENGTH.long())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weighed_margin(weigh):
    """The margin of the worked pairs where all tokens of a completion are equally likely."""
    found = {}
    for side, (own, other) in {"chosen": LENGTHS, "rejected": LENGTHS[::-1]}.items():
        weights = weigh(own, other).double()
        for model in ("policy", "reference"):
            found[model, side] = SUMMED[f"{model}_{side}"] / own * weights.sum(dim=1)
    leads = [found["policy", side] - found["reference", side] for side in ("chosen", "rejected")]
    return leads[0] - leads[1]


def test_the_shared_length_gives_the_worked_margins():
    margin = weighed_margin(lambda own, other: shared_length(own, other, generator(), alpha=0.5))
    assert margin.tolist() == pytest.approx([1.41666667, -0.984375, 1.625], abs=1e-8)
    losses = METHODS["ld_dpo"].loss(margin, *[torch.zeros(3).double()] * 3, beta=0.1)
    assert losses.tolist() == pytest.approx([0.62482043, 0.74357668, 0.61519434], abs=1e-8)


def test_a_drawn_sum_of_equally_likely_tokens_is_the_worked_one():
    """As many tokens as the shorter completion has, whichever: they are all alike."""
    margin = weighed_margin(lambda own, other: sampled(own, other, generator(3)))
    losses = METHODS["sampo"].loss(margin, *[torch.zeros(3).double()] * 3, beta=0.1)
    assert losses.tolist() == pytest.approx([0.62870109, 0.74275732, 0.62095705], abs=1e-8)


def test_tokens_beyond_the_shorter_length_count_alpha():
    own, other = torch.tensor([5, 2, 3]), torch.tensor([2, 4, 3])
    expected = [[1, 1, 0.25, 0.25, 0.25], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert shared_length(own, other, generator(), alpha=0.25).tolist() == expected


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_1_is_the_plain_sum_and_alpha_0_drops_the_rest(alpha):
    own, other = LENGTHS
    counts = shared_length(own, other, generator(), alpha=alpha).sum(dim=1)
    expected = own if alpha == 1 else torch.minimum(own, other)
    assert counts.tolist() == expected.tolist()


def test_a_draw_has_as_many_tokens_as_the_shorter_completion_and_none_behind_the_end():
    own, other = torch.tensor([5, 2, 9, 4]), torch.tensor([2, 4, 3, 4])
    weights = sampled(own, other, generator(1))
    assert weights.shape == (4, 9)
    assert set(weights.flatten().tolist()) == {0.0, 1.0}
    assert weights.sum(dim=1).tolist() == [2, 2, 3, 4]
    for row, length in zip(weights, own.tolist(), strict=True):
        assert not row[length:].any()


def test_every_token_is_drawn_equally_often():
    own, other = torch.tensor([6]).expand(4000), torch.tensor([2]).expand(4000)
    share = sampled(own, other, generator(2)).mean(dim=0)
    assert share.tolist() == pytest.approx([1 / 3] * 6, abs=0.03)


def test_a_draw_is_that_of_its_generator():
    own, other = torch.tensor([8, 9]), torch.tensor([3, 4])
    one, again, another = (sampled(own, other, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, another)


def test_the_options_of_a_rule_are_those_of_its_methods():
    assert (
        METHODS["ld_dpo"].check_params({})["alpha"] == TOKEN_RULES["shared_length"].options["alpha"].default
    )
    assert METHODS["ld_dpo"].check_params({"ld_alpha": 0.2})["alpha"] == 0.2
    assert not TOKEN_RULES["sampled"].options
