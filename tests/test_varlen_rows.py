"""Variable-length kernels on packed rows, by stand-ins: texts, values, gradients, and what they cannot do."""

import pytest
import torch
from packed_rows import (
    GROUPS,
    WINDOWS,
    assert_close,
    by_definition,
    flash_attn_varlen_func,
    gradients,
    inputs,
    segments,
    varlen_attn,
    varlen_attn_without_gqa,
)

from po.engine import varlen_rows
from po.engine.attention import Scoring


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("groups", [GROUPS, [(4, [3]), (9, [30])], [(2, [1] * 9)]])
@pytest.mark.parametrize("name", ["flash", "flash capped", "torch", "torch without gqa"])
def test_varlen(window, groups, name):
    call = {"torch": varlen_attn, "torch without gqa": varlen_attn_without_gqa}.get(name)
    kernel = varlen_rows.Varlen(call or flash_attn_varlen_func, own=call is not None)
    cap = 2.0 if name == "flash capped" else None
    asked = segments(groups, window, filler=11)
    tensors, real = inputs(asked.row), asked.row.ids.shape[1] - 11
    found = gradients(kernel.rows, tensors, asked, cap, real)
    assert_close(found, gradients(by_definition, tensors, asked, cap, real))
    assert kernel.rows(*tensors, asked, Scoring(0.3, cap)).shape == tensors[0].shape


def test_varlen_gathers_each_shared_prompt_once_for_each_further_completion():
    texts = varlen_rows._texts(segments(GROUPS).row.groups, torch.device("cpu"))
    assert len(texts.gathered) == texts.key_ends[-1] == texts.tokens + 30 + 2 * 5 + 120
    assert (
        varlen_rows._texts(segments([(4, [3]), (9, [30])]).row.groups, torch.device("cpu")).gathered is None
    )


def test_varlen_knows_what_it_cannot_do():
    q, k, v = inputs(segments().row, dtype=torch.bfloat16)
    plain, capped, dropping = Scoring(1.0), Scoring(1.0, 30.0), Scoring(1.0, dropout=0.1)
    sinking = Scoring(1.0, sinks=torch.zeros(4))
    flash, own = varlen_rows.Varlen(flash_attn_varlen_func, False), varlen_rows.Varlen(varlen_attn, True)
    assert flash.suits(q, k, v, Scoring(1.0, 30.0, 0.1)) and own.suits(q, k, v, plain)
    assert not own.suits(q, k, v, capped) and not own.suits(q, k, v, dropping)
    for kernel in (flash, own):
        assert not kernel.suits(q.float(), k.float(), v.float(), plain)
        assert not kernel.suits(q[..., :12], k[..., :12], v[..., :12], plain)
        assert not kernel.suits(q, k, v[..., :8], plain)
        assert not kernel.suits(q, k, v, sinking)
        with pytest.raises(ValueError, match="sinks"):
            kernel.rows(q, k, v, segments(), sinking)
    old = varlen_rows.Varlen(lambda q, k, v, a, b, c, d, is_causal=False: None, own=True)
    assert not old.suits(q, k, v, plain)


def test_torch_has_the_kernel_that_is_called():
    kernel = varlen_rows.torch_kernel()
    assert {"scale", "window_size"} <= varlen_rows._parameters(kernel.call)
