"""Attention sinks on packed rows: one more key for every token, on any device and by FlexAttention."""

from types import SimpleNamespace

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
    segments,
)
from tiny_models import assert_same_gradients
from tiny_models import gradients as model_gradients
from tiny_sharing import assert_same, both_ways, candidates, tiny_gpt_oss, values_and_gradients
from tiny_training import random_pairs
from torch.nn.attention.flex_attention import flex_attention

from po.engine import attention, flex_rows
from po.engine import cuda_attention as cuda
from po.engine.attention import Scoring
from po.engine.forward import attach_engine, completion_logps
from po.engine.group_attention import attend_by_groups
from po.training.collate import Collator

SINKS = torch.tensor([-3.0, 0.0, 1.0, 6.0])
FILLER = 11
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


@pytest.fixture
def stood_in(monkeypatch):
    monkeypatch.setattr(cuda, "_works", {})
    monkeypatch.setattr(flex_rows, "_known", set())
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_stand_in)
    cuda.cuda_attention.cache_clear()
    yield
    cuda.cuda_attention.cache_clear()


def given(window=None, dtype=torch.float32):
    asked = segments(window=window, filler=FILLER)
    return asked, [*inputs(asked.row, dtype=dtype), SINKS.to(dtype)], asked.row.ids.shape[1] - FILLER


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("rows", ["long groups", "short groups", "flex"])
def test_values_and_gradients_are_those_of_the_definition(window, cap, rows, monkeypatch, stood_in):
    monkeypatch.setattr("po.engine.group_attention.SHORT", 0 if rows == "long groups" else 256)
    asked, tensors, real = given(window)
    found = gradients(flex_rows.flex_rows if rows == "flex" else attend_by_groups, tensors, asked, cap, real)
    expected = gradients(by_definition, tensors, asked, cap, real)
    assert len(found) == 5 and expected[4].abs().min() > 0
    assert_close(found, expected)
    without = gradients(by_definition, tensors[:3], asked, cap, real)
    assert (expected[0] - without[0]).abs().max() > 0.1 * without[0].abs().max()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cap", CAPS)
def test_flex_itself_gives_the_values(window, cap, monkeypatch):
    monkeypatch.setattr(flex_rows, "_compiled", lambda: flex_attention)
    asked, (q, k, v, sinks), real = given(window)
    scoring = Scoring(0.3, cap, sinks=sinks)
    found = flex_rows.flex_rows(q, k, v, asked, scoring)
    assert found.shape == q.shape and bool(found.isfinite().all())
    assert_close([found[:, :, :real]], [by_definition(q, k, v, asked, scoring)[:, :, :real]])


def test_flex_compiles_a_kernel_with_sinks_and_one_without(monkeypatch):
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True, backend=counter)
    monkeypatch.setattr(flex_rows, "_compiled", lambda: compiled)
    monkeypatch.setattr(flex_rows, "_known", set())
    for window in (None, 4):
        for factor in (None, 1.0, -1.0):
            asked, (q, k, v, sinks), real = given(window)
            scoring = Scoring(0.3, sinks=None if factor is None else factor * sinks)
            found = flex_rows.flex_rows(q, k, v, asked, scoring)[:, :, :real]
            assert_close([found], [by_definition(q, k, v, asked, scoring)[:, :, :real]])
    assert counter.frame_count == 2


@pytest.mark.parametrize("rows", [attend_by_groups, flex_rows.flex_rows, "cuda"])
def test_half_precision(rows, stood_in):
    rows = cuda.cuda_attention("sdpa") if rows == "cuda" else rows
    asked, tensors, real = given(25, torch.bfloat16)
    found = gradients(rows, tensors, asked, None, real)
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    assert_close(found, gradients(by_definition, [t.float() for t in tensors], asked, None, real), 3e-2)


@pytest.mark.parametrize("rows", [attend_by_groups, "cuda"])
def test_autocast(rows, stood_in):
    rows = cuda.cuda_attention("sdpa") if rows == "cuda" else rows
    asked, tensors, real = given(25)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(rows, tensors, asked, None, real)
    assert found[4].dtype == torch.float32
    assert_close(found, gradients(by_definition, tensors, asked, None, real), 3e-2)


def deaf(q, k, v, **how):
    """As if sinks took nothing."""
    found, sums = flex_stand_in(q, k, v, **how)
    return found, sums._replace(lse=sums.lse + 50)


def deaf_backward(q, k, v, **how):
    found, sums = flex_stand_in(q, k, v, **how)
    return found, sums._replace(lse=sums.lse.detach())


@pytest.mark.parametrize("kernel", [deaf, deaf_backward])
def test_a_kernel_is_tried_with_sinks_before_it_is_used_with_them(kernel, monkeypatch, stood_in):
    rows = cuda.cuda_attention("sdpa")
    asked, tensors, real = given()
    gradients(rows, tensors[:3], asked, None, real)
    assert list(cuda._works.values()) == [True]  # without sinks
    monkeypatch.setattr(flex_rows, "_compiled", lambda: kernel)
    with pytest.warns(UserWarning, match=r"given up.*differs by") as said:
        for _ in range(2):
            found = gradients(rows, tensors, asked, None, real)
            assert_close(found, gradients(attend_by_groups, tensors, asked, None, real), 0)
    assert len(said) == 1 and list(cuda._works.values()) == [True, False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("window", [None, 25])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_flex_with_sinks_on_cuda(window, dtype):
    asked = segments([*GROUPS, (700, [90, 300])], window, device="cuda")
    tensors = [*inputs(asked.row, width=64, dtype=dtype), SINKS.to("cuda", dtype)]
    found = gradients(flex_rows.flex_rows, tensors, asked, scaling=0.125)
    expected = gradients(attend_by_groups, [t.float() for t in tensors], asked, scaling=0.125)
    assert_close(found, expected, 2e-2 if dtype == torch.bfloat16 else 5e-3)


def test_sinks_that_sdpa_would_leave_out_are_refused():
    asked, (q, k, v, sinks), _ = given()
    with pytest.raises(TypeError, match="SimpleNamespace has attention sinks, which sdpa leaves out"):
        attention._attend("sdpa", SimpleNamespace(), q, k, v, asked, s_aux=sinks)


@pytest.mark.parametrize("short", [0, 256])
def test_gpt_oss_has_the_values_and_all_gradients_of_padded_rows(short, monkeypatch):
    monkeypatch.setattr("po.engine.group_attention.SHORT", short)
    packed, padded = both_ways(tiny_gpt_oss, Collator("ranked")(candidates(4)))
    assert_same([packed, padded])
    assert len(padded[1]) == len(list(tiny_gpt_oss().parameters()))
    sinks = [gradient for name, gradient in packed[1].items() if name.endswith("sinks")]
    assert len(sinks) == 2 and all(gradient.abs().min() > 0 for gradient in sinks)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gpt_oss_under_gradient_checkpointing(reentrant):
    def checkpointed(model):
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        return model

    assert_same(both_ways(tiny_gpt_oss, Collator()(random_pairs(5)), change=checkpointed))


def test_gpt_oss_in_half_precision_is_as_near_to_float32_as_padded_rows_are():
    """With all four experts: which two are chosen may change with the last bit."""
    batch, found = Collator()(random_pairs(5)), []
    for sharing, narrow in ((False, False), (True, True), (False, True)):
        model = attach_engine(tiny_gpt_oss(experts_per_token=4), sharing=sharing)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            found.append(values_and_gradients(model, batch)[0]["logps"])
    exact, packed, padded = found
    assert (packed - exact).abs().mean() <= 2 * (padded - exact).abs().mean()


def test_gpt_oss_answers_the_same_with_flex(monkeypatch, stood_in):
    batch, found = Collator("paired")(random_pairs(5)), []
    for chosen in (cuda.cuda_attention, lambda plain: attend_by_groups):
        monkeypatch.setattr(attention, "_on_device", lambda query, plain, chosen=chosen: chosen(plain))
        model = attach_engine(tiny_gpt_oss())
        assert model._shares
        values, _ = completion_logps(model, batch)
        found.append((values, model_gradients(model, (values * torch.arange(1, 11)).sum())))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert_same_gradients(found[0][1], found[1][1], 1e-4)
    assert cuda._works and all(cuda._works.values())
