"""A tiny head, full logits for it, and a batch of three pairs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from po.engine import fused, head_tiles, logps
from po.engine.heads import OutputHead
from po.engine.logps import of_logits

VOCABULARY, WIDTH, TOKENS = 70, 12, 41
EVERY = ("logps", "collision", "entropy")
ROWS = torch.tensor([0] * 5 + [1] * 9 + [2] * 4 + [3] * 8 + [4] * 14 + [5])  # of the tokens
EXAMPLES = torch.tensor([0, 1, 2, 0, 1, 2])  # chosen completions first, then rejected ones
REFERENCE = torch.tensor([-20.0, -30.0, -18.0, -30.0, -60.0, -4.0])


@pytest.fixture(params=["whole", "tiles"])
def small_tiles(request, monkeypatch):
    """All logits in one tile; or tiles of 16 tokens and 32 columns, of which some are kept."""
    if request.param == "tiles":
        monkeypatch.setattr(head_tiles, "_TILE_BYTES", {"cpu": 4 * 32 * 16})
        monkeypatch.setattr(head_tiles, "_NARROWEST", 32)
        monkeypatch.setattr(logps, "CHUNK_BYTES", 4 * VOCABULARY * 20)
        monkeypatch.setattr(fused, "LEAST_TOKENS", 6)


def make(dtype=torch.float32, cap=None, bias=False, seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    hidden = (2 * torch.randn(TOKENS, WIDTH, dtype=dtype)).requires_grad_()
    return OutputHead(linear, cap), hidden, torch.randint(VOCABULARY, (TOKENS,))


def called(head):
    """The same head as something that has to be called."""
    return lambda hidden: head(hidden)


def full_values(head, hidden, targets, names):
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return {name: of_logits(name, logits, targets) for name in names}


def gradients(head, hidden, loss):
    wanted = [one for one in (hidden, *head.linear.parameters()) if one.requires_grad]
    return torch.autograd.grad(loss, wanted)


def assert_close(found, expected, relative):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= relative * theirs.norm()


def weighed(values):
    """A number to which every value of every token contributes differently."""
    return sum((v * torch.linspace(-1, 2, len(v))).sum() for v in values.values())


SHAPES = [{}, {"cap": 3.0}, {"bias": True}, {"cap": 3.0, "bias": True}]


def dpo(values):
    chosen, rejected = (values["logps"] - REFERENCE).chunk(2)
    return -F.logsigmoid(0.3 * (chosen - rejected)).sum()


def rows_of(tokens):
    """The values of rows out of those of their tokens, by autograd."""
    lengths = torch.bincount(ROWS)
    sums = {name: value.new_zeros(6).index_add(0, ROWS, value) for name, value in tokens.items()}
    return {name: value if name == "logps" else value / lengths for name, value in sums.items()}
