"""A device that runs out of memory gets smaller pieces, and the step is what it would have been."""

from types import SimpleNamespace

import pytest
import torch
from test_token_budget import assert_same_training, log_of, trained
from tiny_models import tiny
from tiny_training import tiny_llama

from po.settings import SpeedSettings
from po.training.token_budget import budget_for, bytes_per_token, bytes_to_come

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"


class SmallDevice:
    """Lets a trainer's model fail on batches of too many tokens, in the forward or in the backward pass.

    In the backward pass it fails at the embedding, after all other gradients have been added.
    """

    def __init__(self, model, limit, where, calls_before=0):
        self.limit, self.where, self.left = limit, where, calls_before
        self.tokens, self.failures = 0, 0
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        embedding = model.get_input_embeddings()
        embedding.weight.register_hook(self._backward)

    def _before(self, module, args, kwargs):
        if not module.training or "completion_mask" not in kwargs:
            return
        self.tokens = int(kwargs["attention_mask"].sum())
        self.left -= 1
        if self.where == "forward":
            self._fail()

    def _backward(self, gradient):
        if self.where == "backward":
            self._fail()

    def _fail(self):
        if self.tokens > self.limit and self.left < 0:
            self.failures += 1
            raise torch.OutOfMemoryError(MESSAGE)


def on_a_small_device(tmp_path, monkeypatch, limit, where, micro=8, calls_before=0, budget=10_000):
    """A training of cpo; the device is made when training begins."""
    made = []
    from po.training.trainer import MethodTrainer

    plain = MethodTrainer.train

    def train(self, *args, **kwargs):
        made.append(SmallDevice(self.model, limit, where, calls_before))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(MethodTrainer, "train", train)
    found = trained(tmp_path, "cpo", budget, micro, speed=SpeedSettings(token_budget=budget, sharing="off"))
    monkeypatch.setattr(MethodTrainer, "train", plain)
    return found, made[0]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_micro_batch_that_did_not_fit_begins_again_in_smaller_pieces(tmp_path, monkeypatch, where):
    with pytest.warns(UserWarning, match="out of memory; from now on a piece has"):
        found, device = on_a_small_device(tmp_path, monkeypatch, 60, where)
    assert 1 <= device.failures <= 3
    whole = trained(tmp_path, "cpo", 10_000)
    assert len(whole[2]) == 3
    assert_same_training(found, whole)  # the log too: nothing is counted twice
    assert log_of(found[0])


def test_the_smaller_budget_is_kept(tmp_path, monkeypatch):
    """All failures are in the first step: those that follow are no larger."""
    with pytest.warns(UserWarning, match="out of memory"):
        found, device = on_a_small_device(tmp_path, monkeypatch, 60, "forward", budget=200)
    failed = device.failures
    whole = trained(tmp_path, "cpo", 10_000)
    assert failed < len(found[2]) - 3
    assert found[0].piecewise.budget < 200
    assert_same_training(found, whole)


def test_an_example_that_does_not_fit_alone_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError) as error:
        on_a_small_device(tmp_path, monkeypatch, 5, "forward")
    assert error.value.__notes__ == ["lower training.speed.token_budget, or set gradient_checkpointing"]


def test_gradients_of_earlier_micro_batches_are_never_dropped(tmp_path, monkeypatch):
    """The second micro-batch of a step fails: beginning again would lose what the first one has added."""
    with pytest.raises(torch.OutOfMemoryError) as error:
        on_a_small_device(tmp_path, monkeypatch, 10, "forward", micro=4, calls_before=1)
    assert error.value.__notes__


def test_other_errors_are_no_reason_to_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr("test_token_budget_memory.MESSAGE", "shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match") as error:
        on_a_small_device(tmp_path, monkeypatch, 60, "forward")
    assert not getattr(error.value, "__notes__", [])


def test_a_method_that_cannot_be_split_says_why(tmp_path, monkeypatch):
    from po.training.trainer import MethodTrainer

    def fails(self, *args, **kwargs):
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(MethodTrainer, "compute_loss", fails)
    with pytest.raises(torch.OutOfMemoryError) as error:
        trained(tmp_path, "aot", 30)
    (note,) = error.value.__notes__
    assert "losses of aot depend on the micro-batch" in note and "per_device_batch_size a smaller" in note


def test_the_budget_of_a_device_is_a_power_of_two_that_fits():
    assert budget_for(1e12, 1e6) == 16384
    assert budget_for(17e9, 1e6) == 8192
    assert budget_for(16e9, 1e6) == 4096
    assert budget_for(-1.0, 1e6) == 1024


def test_activations_take_less_in_bfloat16_and_with_checkpointing():
    model = tiny_llama()
    plain = bytes_per_token(model, bf16=False)
    assert plain == 2 * (14 * 64 + 4 * 96) * 4
    assert bytes_per_token(model, bf16=True) == plain / 2
    model.gradient_checkpointing_enable()
    assert bytes_per_token(model, bf16=False) < plain


def test_layers_of_several_widths_and_unknown_heads_are_counted():
    model = tiny_llama()
    plain = bytes_per_token(model, bf16=False)
    vars(model.config)["intermediate_size"] = [8, model.config.intermediate_size]
    assert bytes_per_token(model, bf16=False) == plain
    model._own_head = False
    assert bytes_per_token(model, bf16=False) == plain + (2 * 4 + 8) * model.config.vocab_size


def test_a_token_of_a_mixture_takes_the_experts_that_it_goes_to():
    config = tiny("mixtral").config
    one, several = (SimpleNamespace(config=config, dtype=torch.float32) for _ in range(2))
    one.config = type(config)(**{**config.to_dict(), "num_experts_per_tok": 1})
    assert config.num_experts_per_tok > 1
    more = (config.num_experts_per_tok - 1) * 4 * config.intermediate_size * 4 * config.num_hidden_layers
    assert bytes_per_token(several, bf16=False) - bytes_per_token(one, bf16=False) == more


def test_gradients_and_moments_that_are_there_are_not_counted_again():
    model = torch.nn.Linear(10, 5)  # 55 numbers of 4 bytes
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight])
    assert bytes_to_come(model, optimizer, bf16=False) == 3 * 50 * 4
    assert bytes_to_come(model, optimizer, bf16=True) == 3 * 50 * 4 + 55 * 2
    model(torch.ones(1, 10)).sum().backward()
    assert bytes_to_come(model, optimizer, bf16=False) == 2 * 50 * 4
    optimizer.step()
    assert bytes_to_come(model, optimizer, bf16=False) == 0
    optimizer.zero_grad()
    assert bytes_to_come(model, optimizer, bf16=False) == 50 * 4
