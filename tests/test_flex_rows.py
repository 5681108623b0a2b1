"""FlexAttention on packed rows: who sees whom, values, gradients, and how often it is compiled.

It has no backward pass on a CPU: gradients are those of a stand-in that reads the same mask.
"""

import pytest
import torch
from packed_rows import (
    CAPS,
    GROUPS,
    WINDOWS,
    assert_close,
    by_definition,
    flex_stand_in,
    gradients,
    inputs,
    seen,
    segments,
)
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from po.engine import flex_rows
from po.engine.attention import Scoring
from po.engine.group_attention import attend_by_groups

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


@pytest.fixture
def stood_in(monkeypatch):
    monkeypatch.setattr(flex_rows, "_known", set())
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_stand_in)


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 1024, 1025, 2049, 5000, 8192])
def test_lengths_are_few_and_hardly_longer(tokens):
    length = flex_rows.filled_length(tokens)
    assert length >= tokens and length % 256 == 0
    assert length < tokens + 256 or length <= 1.25 * tokens
    assert len({flex_rows.filled_length(n) for n in range(1, 8193)}) == 16


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("filler", [0, 11])
def test_mask_is_the_definition_and_filling_sees_itself(window, filler):
    asked = segments(window=window, filler=filler)
    length = 512
    mask = flex_rows.row_mask(asked, length, "cpu")
    found = create_mask(mask.mask_mod, None, None, length, length, "cpu")[0, 0]
    real = int((asked.row.group >= 0).sum())
    expected = torch.eye(length, dtype=torch.bool)
    expected[:real, :real] = seen(asked)[:real, :real]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("window", [None, 3, 200])
def test_counted_blocks_are_those_of_torch(window):
    asked = segments([(3, [2]), (400, [300, 129]), (700, [10])], window)
    length = flex_rows.filled_length(asked.row.ids.shape[1])
    found = flex_rows.row_mask(asked, length, "cpu")
    expected = create_block_mask(found.mask_mod, None, None, length, length, "cpu")
    kinds = [("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices"),
             ("q_num_blocks", "q_indices"), ("full_q_num_blocks", "full_q_indices")]  # fmt: skip
    for count, indices in kinds:
        assert torch.equal(getattr(found, count), getattr(expected, count)), count
        used = torch.arange(length // 128) < getattr(found, count).unsqueeze(-1)
        assert torch.equal(getattr(found, indices)[used], getattr(expected, indices)[used]), indices
    assert found.full_kv_num_blocks.sum() > 0 or window is not None


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("filler", [0, 11])
def test_flex_itself_gives_the_values(window, cap, filler, monkeypatch):
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_attention)
    asked = segments(window=window, filler=filler)
    tensors = inputs(asked.row)
    real = int((asked.row.group >= 0).sum())
    found = flex_rows.flex_rows(*tensors, asked, Scoring(0.3, cap))
    assert found.shape == tensors[0].shape and bool(found.isfinite().all())
    for expected in (by_definition, attend_by_groups):
        assert_close([found[:, :, :real]], [expected(*tensors, asked, Scoring(0.3, cap))[:, :, :real]])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cap", CAPS)
def test_flex_gradients(window, cap, stood_in):
    asked = segments(window=window, filler=11)
    tensors, real = inputs(asked.row), asked.row.ids.shape[1] - 11
    found = gradients(flex_rows.flex_rows, tensors, asked, cap, real)
    assert_close(found, gradients(by_definition, tensors, asked, cap, real))
    assert found[1][:, :, real:].abs().max() == 0


def test_flex_without_a_shared_head_and_with_wider_values(stood_in):
    asked = segments()
    q, k, v = inputs(asked.row, heads=3, key_heads=3)
    tensors = [q, k, torch.cat([v, v * 0.5], dim=3)]
    assert_close(gradients(flex_rows.flex_rows, tensors, asked), gradients(by_definition, tensors, asked))


def test_flex_compiles_once_for_all_batches_and_windows_of_a_length(monkeypatch):
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True, backend=counter)
    monkeypatch.setattr(flex_rows, "_compiled", lambda: compiled)
    monkeypatch.setattr(flex_rows, "_known", set())
    for groups in (GROUPS, [(40, [3, 5, 9]), (60, [80])], [(200, [56])]):
        for window in (None, 4, 9):
            asked = segments(groups, window)
            tensors = inputs(asked.row)
            if window == 4:  # another memory layout
                tensors = [tensor.contiguous() for tensor in tensors]
            found = flex_rows.flex_rows(*tensors, asked, Scoring(0.3, 2.0))
            assert_close([found], [by_definition(*tensors, asked, Scoring(0.3, 2.0))])
    assert counter.frame_count == 1
    longer = segments([(200, [57])])
    flex_rows.flex_rows(*inputs(longer.row), longer, Scoring(0.3, 2.0))
    assert counter.frame_count == 2


def test_flex_refuses_dropout():
    asked = segments()
    assert not flex_rows.flex_suits(*inputs(asked.row), Scoring(0.3, dropout=0.1))
    with pytest.raises(ValueError, match="dropout"):
        flex_rows.flex_rows(*inputs(asked.row), asked, Scoring(0.3, dropout=0.1))


def test_nothing_is_split_while_a_kernel_is_compiled(monkeypatch, stood_in):
    """Within a DDP model torch would split the graph."""
    config, found = torch._dynamo.config, []

    def watching(*args, **how):
        found.append(config.optimize_ddp)
        return flex_stand_in(*args, **how)

    monkeypatch.setattr(flex_rows, "_compiled", lambda: watching)
    asked = segments()
    for _ in range(2):
        flex_rows.flex_rows(*inputs(asked.row), asked, Scoring(0.3))
    assert found == [False, config.optimize_ddp] and config.optimize_ddp


def test_more_lengths_are_compiled_than_torch_allows_by_itself():
    flex_rows._compiled()
    assert torch._dynamo.config.recompile_limit >= 2 * 16
