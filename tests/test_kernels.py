"""What ``speed.compile`` and ``speed.liger`` do: the same values, gradients and names of weights."""

import copy
import sys
import types

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from tiny_models import tiny
from tiny_training import preference_trainer, random_pairs, tiny_llama
from torch.nn.parallel import DistributedDataParallel

from po.engine.forward import attach_engine, completion_logps
from po.faults import InputFault
from po.models.loading import disable_dropout
from po.settings import SpeedSettings
from po.training import kernels
from po.training.collate import Collator
from po.training.kernels import check_same_states, compile_layers, use_kernels, use_liger

QUICK = "aot_eager"  # traces and differentiates as the default does, and writes no C++


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    with torch._dynamo.config.patch(optimize_ddp=True):  # as torch has it
        yield
    torch.compiler.reset()


def batches(sizes):
    return [Collator("paired")(random_pairs(size, seed=size)) for size in sizes]


def steps(model, data):
    """Values and gradients of some batches."""
    found = []
    for batch in data:
        model.zero_grad()
        logps, _ = completion_logps(model, batch)
        logps.sum().backward()
        found.append((logps.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    return found


def assert_same(found, expected):
    for (values, gradients), (own_values, own_gradients) in zip(found, expected, strict=True):
        torch.testing.assert_close(values, own_values, rtol=1e-5, atol=1e-5)
        assert len(gradients) == len(own_gradients) > 0
        largest = max(gradient.norm() for gradient in own_gradients)
        for gradient, own in zip(gradients, own_gradients, strict=True):
            assert (gradient - own).norm() <= 1e-5 * own.norm() + 1e-6 * largest


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_compiled_layers_give_the_same_values_and_gradients(name, checkpointing):
    plain = tiny(name).train()
    disable_dropout(plain)
    compiled = copy.deepcopy(plain)
    for model in (plain, compiled):
        attach_engine(model)
        if checkpointing:
            model.gradient_checkpointing_enable()
    assert compile_layers(compiled, QUICK) == 2
    data = batches([2, 5, 3])
    assert_same(steps(compiled, data), steps(plain, data))


def test_compiled_layers_work_with_adapters():
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    plain = get_peft_model(tiny_llama(num_hidden_layers=1), config)
    compiled = copy.deepcopy(plain)
    data = batches([2, 4])
    assert compile_layers(attach_engine(compiled), QUICK) == 1
    assert_same(steps(compiled, data), steps(attach_engine(plain), data))


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_compiled_layers_work_under_ddp(one_process):
    plain = tiny_llama(num_hidden_layers=1)
    compiled = copy.deepcopy(plain)
    assert compile_layers(attach_engine(compiled), QUICK) == 1
    data = batches([2, 4])
    wrapped = DistributedDataParallel(compiled, bucket_cap_mb=0.02)  # several sums in a backward pass
    assert_same(steps(wrapped, data), steps(attach_engine(plain), data))


def test_rows_of_other_lengths_and_more_layers_compile_nothing_anew():
    from torch._dynamo.utils import counters

    model = attach_engine(tiny_llama(num_hidden_layers=4))
    compile_layers(model, QUICK)
    steps(model, batches([2, 3]))
    before = counters["stats"]["unique_graphs"]
    assert before > 0
    steps(model, batches([4, 5, 6, 7, 8, 9, 10, 11, 12, 13]))
    assert counters["stats"]["unique_graphs"] == before


def test_names_of_weights_stay_and_a_copy_is_not_compiled():
    model = attach_engine(tiny_llama())
    names = list(model.state_dict())
    compile_layers(model, QUICK)
    assert list(model.state_dict()) == names
    assert copy.deepcopy(model).model.layers[0]._compiled_call_impl is None


def test_a_compiler_that_does_not_work_is_told_in_one_line():
    def broken(graph, inputs):
        raise RuntimeError("no working C++ compiler\nand much more")

    with pytest.raises(InputFault, match=r"speed\.compile.*no working C\+\+ compiler") as fault:
        compile_layers(attach_engine(tiny_llama()), broken)
    assert "\n" not in str(fault.value)


def test_nothing_is_done_unless_asked_for():
    model = attach_engine(tiny_llama())
    use_kernels(model, SpeedSettings())
    assert all(module._compiled_call_impl is None for module in model.modules())


@pytest.mark.slow
def test_compiled_training_gives_the_same_weights(tmp_path):
    found = []
    for compiled in (False, True):
        # SGD: Adam turns rounding into whole steps where a gradient is nearly 0
        options = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.1}
        trainer = preference_trainer(tmp_path, tiny_llama(), random_pairs(8), "simpo", **options)
        if compiled:
            use_kernels(trainer.model, SpeedSettings(compile=True))
        trainer.train()
        found.append(trainer.model.state_dict())
    plain, other = found
    assert plain.keys() == other.keys()
    assert not torch.equal(plain["lm_head.weight"], tiny_llama().lm_head.weight)
    for name, weights in plain.items():
        torch.testing.assert_close(other[name], weights, rtol=1e-4, atol=1e-6)


@pytest.fixture
def liger(monkeypatch):
    """A stand-in for the package, and a CUDA device that is not there; gives the recorded calls."""
    calls = []
    package, patches = (
        types.ModuleType(f"liger_kernel.{name}") for name in ("transformers", "transformers.monkey_patch")
    )
    package._apply_liger_kernel_to_instance = lambda **given: calls.append(given)
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, patches.__name__, patches)
    monkeypatch.setattr(kernels.torch.cuda, "is_available", lambda: True)
    return calls


@pytest.mark.parametrize("adapted", [False, True])
def test_liger_replaces_layers_below_adapters_and_no_loss(liger, adapted):
    plain = tiny_llama()
    model = get_peft_model(plain, LoraConfig(target_modules=["q_proj"])) if adapted else plain
    use_kernels(model, SpeedSettings(liger=True))
    assert liger == [{"model": plain, "fused_linear_cross_entropy": False, "cross_entropy": False}]


def test_an_architecture_that_liger_does_not_know_keeps_its_layers(liger):
    with pytest.warns(UserWarning, match="no kernels for models of type 'phi3'"):
        use_liger(tiny("phi3"))
    assert liger == []


def test_liger_without_the_package_says_what_to_install(liger, monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    with pytest.raises(InputFault, match=r"pip install 'preference-suite\[liger\]', or set liger: false"):
        use_liger(tiny_llama())


def test_liger_without_cuda_says_what_else_there_is():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputFault, match="no CUDA device is visible; set liger: false"):
        use_liger(tiny_llama())


def test_a_change_of_layers_must_keep_their_answers():
    model = tiny_llama()
    check_same_states(model, lambda: None)

    def other_activation():
        for layer in model.model.layers:
            layer.mlp.act_fn = torch.nn.GELU()

    with pytest.raises(InputFault, match="the hidden states of LlamaForCausalLM differ by .*liger: false"):
        check_same_states(model, other_activation)
