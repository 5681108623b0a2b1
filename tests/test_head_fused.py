"""The head fused with the loss, and both forms where models and processes use them."""

import pytest
import torch
import torch.nn.functional as F
from head_cases import (
    EVERY,
    EXAMPLES,
    REFERENCE,
    ROWS,
    SHAPES,
    TOKENS,
    VOCABULARY,
    WIDTH,
    assert_close,
    dpo,
    full_values,
    gradients,
    make,
    rows_of,
    small_tiles,
)
from torch import nn
from two_processes import in_two_processes

from po.engine import fused
from po.engine.fused import fused_rows, slopes_of
from po.engine.heads import OutputHead, plain_head
from po.engine.logps import token_statistics

__all__ = ["small_tiles"]  # a fixture


def simpo_with_collision(values):
    mean = values["logps"] / torch.bincount(ROWS) * (1 - values["collision"].detach().exp())
    chosen, rejected = (mean - 0.2 * values["collision"] + 0.5 * values["entropy"]).chunk(2)
    return -F.logsigmoid(2 * (chosen - rejected) - 0.5).square().sum()


LOSSES = [(dpo, ("logps",)), (simpo_with_collision, EVERY)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("loss, names", LOSSES, ids=["dpo", "simpo"])
@pytest.mark.parametrize("dtype, exact", [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_the_fused_form_has_the_gradients_of_full_logits(small_tiles, shape, loss, names, dtype, exact):
    head, hidden, targets = make(dtype, **shape)
    expected = rows_of(full_values(head, hidden, targets, names))
    slopes = gradients(head, hidden, 3 * loss(expected))
    surrogate, found = fused_rows(
        hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(loss), names, 4 * VOCABULARY * 10
    )
    for name in names:
        assert torch.allclose(found[name], expected[name].to(dtype), rtol=exact, atol=exact)
        assert not found[name].requires_grad
    assert_close(gradients(head, hidden, 3 * surrogate), slopes, exact)


def test_the_fused_form_asks_about_whole_examples(small_tiles, monkeypatch):
    monkeypatch.setattr(fused, "LEAST_TOKENS", 6)
    head, hidden, targets = make()
    asked = []

    def slopes(values, rows):
        asked.append(rows.tolist())
        assert all(values["logps"][rows] < 0)
        return slopes_of(dpo)(values, rows)

    fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes, chunk_bytes=4 * VOCABULARY * 18)
    assert asked == [[0, 3], [1, 4], [2, 5]]  # 13, 23 and 5 tokens
    asked.clear()
    fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes, chunk_bytes=4 * VOCABULARY * 36)
    assert asked == [[0, 3, 1, 4], [2, 5]]


def test_one_pass_pays_unless_the_vocabulary_leaves_room_for_few_tokens():
    assert [fused.pays(vocabulary) for vocabulary in (32_000, 65_536, 65_537, 128_000)] == [
        True,
        True,
        False,
        False,
    ]


def test_the_fused_form_leaves_a_frozen_head_without_gradient():
    head, hidden, targets = make(torch.float64)
    expected = gradients(head, hidden, dpo(rows_of(full_values(head, hidden, targets, ["logps"]))))[0]
    head.linear.requires_grad_(False)
    surrogate, _ = fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo))
    surrogate.backward()
    assert head.linear.weight.grad is None
    assert_close([hidden.grad], [expected], 1e-10)


def test_the_fused_form_gives_its_gradients_once():
    head, hidden, targets = make()
    surrogate, _ = fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo))
    surrogate.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run its forward pass again"):
        surrogate.backward()


def test_the_fused_form_refuses_values_that_it_does_not_have():
    head, hidden, targets = make()
    with pytest.raises(ValueError, match="no value 'kl'; it has: logps"):
        fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo), ("logps", "kl"))


def test_tied_embeddings_get_the_sum_of_both_gradients(small_tiles):
    torch.manual_seed(0)
    table = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
    head = OutputHead(nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=torch.float64))
    head.linear.weight = table.weight
    targets = torch.randint(VOCABULARY, (TOKENS,))

    def gradient(loss_of):
        (found,) = torch.autograd.grad(loss_of(table(targets.roll(1)).tanh()), [table.weight])
        return found

    expected = gradient(lambda hidden: dpo(rows_of(full_values(head, hidden, targets, ["logps"]))))
    tiled = gradient(lambda hidden: dpo(rows_of(token_statistics(hidden, targets, head, VOCABULARY))))
    one_pass = gradient(lambda h: fused_rows(h, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo))[0])
    assert_close([tiled, one_pass], [expected, expected], 1e-10)


@pytest.mark.parametrize("cap", [None, 3.0])
def test_autocast_rounds_the_products_and_nothing_else(small_tiles, cap):
    head, hidden, targets = make(cap=cap)
    with torch.autocast("cpu", torch.bfloat16):
        expected = rows_of(full_values(head, hidden, targets, ["logps"]))
        slopes = gradients(head, hidden, dpo(expected))
        tiled = rows_of(token_statistics(hidden, targets, head, VOCABULARY))
        surrogate, one_pass = fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo))
        again = gradients(head, hidden, dpo(tiled))
    for found in (tiled, one_pass):
        assert found["logps"].dtype == torch.float32
        assert torch.allclose(found["logps"], expected["logps"], rtol=1e-3, atol=1e-2)
    for found in (again, gradients(head, hidden, surrogate)):
        assert all(one.dtype == torch.float32 for one in found)
        assert_close(found, slopes, 1e-2)
    with torch.no_grad():
        unrounded = rows_of(full_values(head, hidden, targets, ["logps"]))
    assert not torch.allclose(unrounded["logps"], expected["logps"], rtol=0, atol=1e-3)  # so it was felt


def test_a_head_in_bfloat16_gets_gradients_in_bfloat16(small_tiles):
    head, hidden, targets = make(torch.bfloat16)
    expected = gradients(head, hidden, dpo(rows_of(full_values(head, hidden, targets, ["logps"]))))
    tiled = dpo(rows_of(token_statistics(hidden, targets, head, VOCABULARY)))
    surrogate, _ = fused_rows(hidden, targets, ROWS, EXAMPLES, plain_head(head), slopes_of(dpo))
    for loss in (tiled, surrogate):
        found = gradients(head, hidden, loss)
        assert all(one.dtype == torch.bfloat16 for one in found)
        assert_close([one.float() for one in found], [one.float() for one in expected], 2e-2)


class Tiny(nn.Module):
    """A body and a head; answers with the loss of its share of the pairs."""

    def __init__(self, one_pass):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.one_pass = one_pass

    def forward(self, inputs, targets, row, example, reference):
        def total(values):
            chosen, rejected = (values["logps"] - reference).chunk(2)
            return -F.logsigmoid(0.3 * (chosen - rejected)).sum()

        hidden = self.body(inputs)
        if self.one_pass:
            return fused_rows(hidden, targets, row, example, plain_head(self.head), slopes_of(total))[0]
        found = token_statistics(hidden, targets, self.head, VOCABULARY)["logps"]
        return total({"logps": found.new_zeros(len(example)).index_add(0, row, found)})


def batch_of(pairs):
    """The tokens of some of the three pairs, as `ROWS` and `EXAMPLES` have them."""
    torch.manual_seed(1)
    inputs, targets = torch.randn(TOKENS, WIDTH), torch.randint(VOCABULARY, (TOKENS,))
    rows = [row for row in range(6) if int(EXAMPLES[row]) in pairs]
    taken = torch.isin(ROWS, torch.tensor(rows))
    renamed = torch.tensor([rows.index(row) if row in rows else -1 for row in range(6)])
    example = torch.tensor([pairs.index(int(EXAMPLES[row])) for row in rows])
    return inputs[taken], targets[taken], renamed[ROWS[taken]], example, REFERENCE[rows]


@pytest.mark.parametrize("one_pass", [False, True])
def test_two_processes_sum_the_gradients_of_their_pairs(tmp_path, one_pass):
    whole = Tiny(one_pass=False)
    whole(*batch_of([0, 1, 2])).backward()
    expected = [parameter.grad for parameter in whole.parameters()]

    def work(rank):
        model = nn.parallel.DistributedDataParallel(Tiny(one_pass))
        (2 * model(*batch_of([0, 2] if rank == 0 else [1]))).backward()  # DDP averages
        assert_close([parameter.grad for parameter in model.parameters()], expected, 1e-5)

    in_two_processes(tmp_path, work)
