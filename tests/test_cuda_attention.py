"""Which kernel attends on CUDA, its trial, and giving it up aloud.

Without CUDA, by stand-ins; tests marked ``gpu`` run the kernels themselves.
"""

import sys
import types
import warnings

import pytest
import torch
from packed_rows import (
    GROUPS,
    assert_close,
    by_definition,
    flash_attn_varlen_func,
    flex_stand_in,
    gradients,
    inputs,
    segments,
    varlen_attn,
)
from tiny_models import assert_same_gradients, tiny
from tiny_models import gradients as model_gradients
from tiny_training import random_pairs
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import CheckpointError, checkpoint, set_checkpoint_early_stop

from po.engine import attention, flex_rows, varlen_rows
from po.engine import cuda_attention as cuda
from po.engine.attention import Scoring
from po.engine.forward import attach_engine, completion_logps
from po.engine.group_attention import attend_by_groups
from po.training.collate import Collator

PLAIN = Scoring(0.3)


@pytest.fixture
def stood_in(monkeypatch):
    """No verdicts yet, and FlexAttention by its stand-in."""
    monkeypatch.setattr(cuda, "_works", {})
    monkeypatch.setattr(flex_rows, "_known", set())
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_stand_in)
    cuda.cuda_attention.cache_clear()
    yield
    cuda.cuda_attention.cache_clear()


def test_flash_attn_is_used_where_a_model_asks_for_it(monkeypatch, stood_in):
    calls = []

    def counted(*args, dropout_p, softmax_scale, causal, window_size):
        calls.append(args[0].shape)
        return flash_attn_varlen_func(
            *args, dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window_size=window_size
        )

    module = types.ModuleType("flash_attn")
    module.flash_attn_varlen_func = counted
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    asked = segments(window=7)
    tensors = inputs(asked.row, dtype=torch.bfloat16)
    rows = cuda.cuda_attention("flash_attention_2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rows(*tensors, asked, PLAIN)
        tried = len(calls)
        rows(*tensors, asked, PLAIN)
    assert tried == 3 and len(calls) == 4  # two windows of the trial, then those asked for
    assert_close([found], [by_definition(*(t.float() for t in tensors), asked, PLAIN)], 2e-2)


def test_a_missing_flash_attn_is_said(monkeypatch, stood_in):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.warns(UserWarning, match="without flash-attn"):
        rows = cuda.cuda_attention("flash_attention_2")
    asked = segments()
    tensors = inputs(asked.row)
    assert_close(gradients(rows, tensors, asked), gradients(by_definition, tensors, asked))


def test_flex_on_a_cpu_fails_its_trial_once_and_groups_are_used(monkeypatch, stood_in):
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_attention)
    rows = cuda.cuda_attention("sdpa")
    asked = segments(window=5)
    tensors = inputs(asked.row)
    with pytest.warns(UserWarning, match="FlexAttention is given up.*grouped attention.*backward") as said:
        found = gradients(rows, tensors, asked)
        again = gradients(rows, tensors, asked)
    assert len(said) == 1
    for one in (found, again):
        assert_close(one, gradients(attend_by_groups, tensors, asked))


def wrong(q, k, v, **how):
    return flex_stand_in(q, k, v, **how) * 1.2


def wrong_backward(q, k, v, **how):
    return flex_stand_in(q, k.detach() + 0 * k, v, **how)


def broken(q, k, v, **how):
    raise RuntimeError("no valid configuration\nmore of the kernel's grief")


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (wrong, "differs by 0.2"),
        (wrong_backward, "differs by 1 "),
        (broken, "RuntimeError: no valid config.*"),
    ],
)
def test_a_kernel_that_fails_its_trial_is_given_up_aloud(kernel, reason, monkeypatch, stood_in):
    monkeypatch.setattr(flex_rows, "_compiled", lambda: kernel)
    rows, asked = cuda.cuda_attention("sdpa"), segments()
    tensors = inputs(asked.row)
    with pytest.warns(UserWarning, match=f"given up, the slower grouped attention.*{reason}") as said:
        for _ in range(2):
            assert_close(gradients(rows, tensors, asked), gradients(attend_by_groups, tensors, asked))
    assert len(said) == 1


def test_a_kernel_that_breaks_later_is_given_up_aloud(monkeypatch, stood_in):
    rows, asked = cuda.cuda_attention("sdpa"), segments()
    tensors = inputs(asked.row)
    rows(*tensors, asked, PLAIN)
    monkeypatch.setattr(flex_rows, "_compiled", lambda: broken)
    with pytest.warns(UserWarning, match="no valid config") as said:
        for _ in range(2):
            assert_close([rows(*tensors, asked, PLAIN)], [attend_by_groups(*tensors, asked, PLAIN)], 0)
    assert len(said) == 1
    other = inputs(asked.row, heads=2, key_heads=1)  # other heads are tried anew
    with pytest.warns(UserWarning, match="no valid config"):
        rows(*other, asked, PLAIN)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, CheckpointError])
def test_errors_that_are_none_of_the_kernel_are_no_reason_to_give_up(error, monkeypatch, stood_in):
    rows, asked = cuda.cuda_attention("sdpa"), segments()
    tensors = inputs(asked.row)

    def broken_off(q, k, v, **how):
        raise error("of others")

    for _ in range(2):  # in a trial, then in use
        with monkeypatch.context() as changed:
            changed.setattr(flex_rows, "_compiled", lambda: broken_off)
            with pytest.raises(error, match="of others"):
                rows(*tensors, asked, PLAIN)
        assert_close([rows(*tensors, asked, PLAIN)], [by_definition(*tensors, asked, PLAIN)])
    assert list(cuda._works.values()) == [True]


def test_a_layer_that_is_recomputed_otherwise_is_an_error_of_the_layer(stood_in):
    rows, asked, calls = cuda.cuda_attention("sdpa"), segments(), []
    leaves = [tensor.requires_grad_() for tensor in inputs(asked.row)]

    def layer(q, k, v):
        calls.append(1)
        return rows(q if len(calls) == 1 else q.sin().sin().sin(), k, v, asked, PLAIN)

    with set_checkpoint_early_stop(False), pytest.raises(CheckpointError, match="more tensors"):
        checkpoint(layer, *leaves, use_reentrant=False).sum().backward()
    assert list(cuda._works.values()) == [True]


def test_a_varlen_kernel_that_fails_gives_way_to_flex(monkeypatch, stood_in):
    kernel = varlen_rows.Varlen(varlen_attn, own=True)
    named = cuda._Kernel("torch's", kernel.suits, broken)
    flex = cuda._Kernel("FlexAttention", flex_rows.flex_suits, flex_rows.flex_rows)
    asked = segments()
    tensors = inputs(asked.row, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="torch's is given up, FlexAttention is used") as said:
        found = cuda._attend((named, flex), *tensors, asked, PLAIN)
    assert len(said) == 1 and found.dtype == torch.bfloat16
    assert_close([found], [by_definition(*(t.float() for t in tensors), asked, PLAIN)], 2e-2)


def test_dropout_is_left_to_the_grouped_form_aloud(stood_in):
    cuda._say_of_dropout.cache_clear()
    asked = segments()
    q, k, v = inputs(asked.row)
    rows = cuda.cuda_attention("sdpa")
    with pytest.warns(UserWarning, match="drops out") as said:
        torch.manual_seed(5)
        found = [rows(q, k, v, asked, Scoring(0.3, dropout=0.5)) for _ in range(2)]
    torch.manual_seed(5)
    assert_close(found, [attend_by_groups(q, k, v, asked, Scoring(0.3, dropout=0.5)) for _ in range(2)], 0)
    assert len(said) == 1 and cuda._works == {}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_trial_within_gradient_checkpointing_disturbs_nothing(reentrant, stood_in):
    rows, asked = cuda.cuda_attention("sdpa"), segments()
    tensors = inputs(asked.row)
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def recomputed(*given):
        return checkpoint(
            lambda q, k, v: rows(q.sin(), k, v, asked, PLAIN), *given[:3], use_reentrant=reentrant
        )

    def plain(q, k, v, asked, scoring):
        return by_definition(q.sin(), k, v, asked, scoring)

    def backward(call):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        values = call(*leaves, asked, PLAIN)
        (values * torch.linspace(-1, 2, values.numel()).view_as(values)).sum().backward()
        return [values.detach(), *(leaf.grad for leaf in leaves)]

    assert_close(backward(recomputed), backward(plain))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_trial_without_gradients(mode, stood_in):
    asked = segments()
    tensors = inputs(asked.row)
    with mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cuda.cuda_attention("sdpa")(*tensors, asked, PLAIN)
    assert not found.requires_grad
    assert_close([found], [by_definition(*tensors, asked, PLAIN)])


def test_autocast_decides_the_precision(stood_in):
    """Norms of queries and keys can leave them in full precision beside values in half."""
    asked = segments()
    q, k, v = inputs(asked.row)
    with torch.autocast("cpu", torch.bfloat16):
        kernels = (cuda._Kernel("FlexAttention", flex_rows.flex_suits, flex_rows.flex_rows),)
        found = cuda._attend(kernels, q, k, v.bfloat16(), asked, PLAIN)
    assert found.dtype == torch.bfloat16
    assert_close([found], [by_definition(q, k, v, asked, PLAIN)], 2e-2)


def test_in_a_compiled_model_the_graph_breaks_around_it(stood_in):
    rows, asked = cuda.cuda_attention("sdpa"), segments()
    tensors = inputs(asked.row)
    compiled = torch.compile(lambda q, k, v: rows(q.sin(), k, v, asked, PLAIN).cos(), backend="eager")
    q, k, v = tensors
    assert_close([compiled(q, k, v)], [by_definition(q.sin(), k, v, asked, PLAIN).cos()])


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_models_answer_the_same(name, monkeypatch, stood_in):
    batch = Collator("paired")(random_pairs(5))
    found = []
    for chosen in (cuda.cuda_attention, lambda plain: attend_by_groups):
        monkeypatch.setattr(attention, "_on_device", lambda query, plain, chosen=chosen: chosen(plain))
        model = attach_engine(tiny(name))
        assert model._shares
        values, _ = completion_logps(model, batch)
        found.append((values, model_gradients(model, (values * torch.arange(1, 11)).sum())))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert_same_gradients(found[0][1], found[1][1], 1e-4)
    assert cuda._works and all(cuda._works.values())


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("window", [None, 25])
@pytest.mark.parametrize("width", [64, 80, 128, 256])
@pytest.mark.parametrize(
    ("dtype", "cap"),
    [(torch.bfloat16, None), (torch.bfloat16, 2.0), (torch.float32, None), (torch.float32, 2.0)],
)
def test_kernels_on_cuda(window, width, dtype, cap):
    asked = segments([*GROUPS, (700, [90, 300])], window, device="cuda")
    tensors = inputs(asked.row, heads=6, key_heads=2, width=width, dtype=dtype)
    real = int((asked.row.group >= 0).sum())
    expected = gradients(attend_by_groups, [t.float() for t in tensors], asked, cap, real, width**-0.5)
    kernels = cuda._kernels("sdpa")
    ran = [kernel for kernel in kernels if kernel.suits(*tensors, Scoring(1.0, cap))]
    assert ran
    for kernel in ran:
        found = gradients(kernel.rows, tensors, asked, cap, real, width**-0.5)
        assert_close(found, expected, 2e-2 if dtype == torch.bfloat16 else 5e-3)


@pytest.mark.gpu
@needs_cuda
def test_cuda_gives_up_nothing(monkeypatch):
    monkeypatch.setattr(cuda, "_works", {})
    asked = segments(device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (torch.bfloat16, torch.float32):
            cuda.cuda_attention("sdpa")(*inputs(asked.row, dtype=dtype, width=64), asked, Scoring(0.125))
