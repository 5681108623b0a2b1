"""The head in tiles and called as a module, against full logits and autograd."""

import copy

import pytest
import torch
from head_cases import (
    EVERY,
    SHAPES,
    TOKENS,
    VOCABULARY,
    WIDTH,
    assert_close,
    called,
    full_values,
    gradients,
    make,
    small_tiles,
    weighed,
)
from torch import nn

from po.engine.heads import OutputHead, plain_head
from po.engine.logps import of_logits, token_statistics

__all__ = ["small_tiles"]  # a fixture


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("names", [("logps",), ("collision", "logps"), ("logps", "entropy"), EVERY], ids=str)
@pytest.mark.parametrize("dtype, exact", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_values_and_gradients_are_those_of_full_logits(small_tiles, shape, names, dtype, exact):
    head, hidden, targets = make(dtype, **shape)
    expected = full_values(head, hidden, targets, names)
    slopes = gradients(head, hidden, weighed(expected))
    for form in (head, called(head)):
        found = token_statistics(hidden, targets, form, VOCABULARY, names)
        assert list(found) == list(names)
        for name in names:
            assert found[name].dtype == dtype
            assert torch.allclose(found[name], expected[name], rtol=exact, atol=exact)
        assert_close(gradients(head, hidden, weighed(found)), slopes, exact)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("names", [("logps",), EVERY], ids=str)
def test_a_frozen_head_gives_the_hidden_states_the_same_gradients(small_tiles, shape, names):
    head, hidden, targets = make(torch.float64, **shape)
    expected = gradients(head, hidden, weighed(full_values(head, hidden, targets, names)))[0]
    head.linear.requires_grad_(False)
    found = token_statistics(hidden, targets, head, VOCABULARY, names)
    assert_close(gradients(head, hidden, weighed(found)), [expected], 1e-10)


def test_a_bias_trained_beside_frozen_weights_gets_its_gradient(small_tiles):
    head, hidden, targets = make(torch.float64, bias=True)
    head.linear.weight.requires_grad_(False)
    expected = gradients(head, hidden, weighed(full_values(head, hidden, targets, ["logps"])))
    found = token_statistics(hidden, targets, head, VOCABULARY)
    assert_close(gradients(head, hidden, weighed(found)), expected, 1e-10)


def test_a_backward_pass_can_run_twice(small_tiles):
    head, hidden, targets = make(torch.float64)
    loss = weighed(token_statistics(hidden, targets, head, VOCABULARY))
    first = torch.autograd.grad(loss, [hidden, head.linear.weight], retain_graph=True)
    assert_close(torch.autograd.grad(loss, [hidden, head.linear.weight]), first, 1e-12)


def test_what_is_logged_has_no_gradient(small_tiles):
    head, hidden, targets = make()
    logits = head(hidden)
    for form in (head, called(head)):
        found = token_statistics(hidden, targets, form, VOCABULARY, logged=("entropy", "mean_logit"))
        assert [found[name].requires_grad for name in ("logps", "entropy", "mean_logit")] == [
            True,
            False,
            False,
        ]
        assert torch.allclose(found["mean_logit"], logits.mean(dim=-1), atol=1e-6)
        assert torch.allclose(found["entropy"], of_logits("entropy", logits, targets), atol=1e-6)


def test_extreme_logits_stay_finite(small_tiles):
    head, hidden, targets = make()
    with torch.no_grad():
        head.linear.weight.mul_(1000)
    found = token_statistics(hidden, targets, head, VOCABULARY, EVERY)
    expected = full_values(head, hidden, targets, EVERY)
    for name in EVERY:
        assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-4)
    assert all(one.isfinite().all() for one in gradients(head, hidden, weighed(found)))


def test_only_plain_weights_are_taken_from_a_head():
    linear = nn.Linear(WIDTH, VOCABULARY)
    assert plain_head(linear).weight is linear.weight
    assert plain_head(OutputHead(linear, 5.0)).cap == 5.0
    subclass, hooked, sharded = (copy.deepcopy(linear) for _ in range(3))
    subclass.__class__ = type("Adapted", (nn.Linear,), {})
    hooked.register_forward_hook(lambda *_: None)
    sharded.weight.ds_id = 0
    heads = (
        subclass,
        hooked,
        sharded,
        called(linear),
        nn.Sequential(linear),
        nn.utils.parametrizations.weight_norm(linear),
    )
    assert [plain_head(head) for head in heads] == [None] * 6


def test_sharded_weights_are_used_by_their_module_alone():
    _, hidden, targets = make()
    calls = []
    counted = OutputHead(nn.Linear(WIDTH, VOCABULARY))
    plain = type(counted.linear).forward
    try:
        nn.Linear.forward = lambda self, x: calls.append(len(x)) or plain(self, x)
        token_statistics(hidden, targets, counted, VOCABULARY, n_chunks=lambda needed: needed + 1)
    finally:
        nn.Linear.forward = plain
    assert calls == [TOKENS, 0]
