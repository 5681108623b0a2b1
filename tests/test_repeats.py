"""Examples that fill the last micro-batches of an epoch are computed, and weigh nothing."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler
from trainer_cases import (
    Gradients,
    assert_same_gradients,
    plain_rows,
    rows_for,
    small_llama,
    start_and_policy,
    step_gradients,
    trainer_for,
    with_stored,
)
from two_processes import in_two_processes

from po.methods import METHODS, resolve
from po.settings import SpeedSettings
from po.training.layouts import COUNTED
from po.training.repeats import marked, own_rows

CASES = {
    "dpo": {"beta": 0.5},
    "cpo": {"nll_weight": 0.7},
    "tdpo2": {},
    "pl_dpo": {},
    "sft": {},
    "apo_zero_unpaired": {},
}
ALONE = [name for name, method in METHODS.items() if not method.batch_coupled and method.state is None]
ALONE += ["wpo(ipo)", "mix(dpo, sft)", "tr_dpo(ipo)"]
WHOLE = SpeedSettings(token_budget=10_000)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_own_rows_come_first_and_are_those_that_no_other_process_has(size, processes):
    for n in range(1, 60):
        batches = BatchSampler(SequentialSampler(range(n)), size, drop_last=False)
        lasts = [list(BatchSamplerShard(batches, processes, process))[-1] for process in range(processes)]
        own = [own_rows(n, size, processes, process) for process in range(processes)]
        found = [row for last, count in zip(lasts, own, strict=True) for row in last[:count]]
        assert found == list(range(n - sum(own), n))
        assert all(len(last) == size for last in lasts)


def case(name, n, pairs=False):
    """A method, its values, where it starts, its policy, and rows; pairs to an unpaired one if so."""
    method = resolve(name)
    values = method.check_params(CASES.get(name, {}))
    start, policy = start_and_policy(method, values, small_llama())
    if pairs:
        return method, values, start, policy, with_stored(plain_rows("paired", n), method, values, start)
    return method, values, start, policy, rows_for(method, values, n, start)


@pytest.mark.parametrize("speed", [None, SpeedSettings(head="recompute")])
@pytest.mark.parametrize("name", ALONE)
def test_an_example_that_does_not_count_changes_neither_loss_nor_gradients(tmp_path, name, speed):
    method, values, start, policy, rows = case(name, 5)
    trainer = trainer_for(tmp_path, method, values, rows, policy, start, speed=speed)
    expected_loss, expected = step_gradients(trainer, rows[:3], 3)
    logged = trainer._means["train"].take(trainer.accelerator)
    plain = trainer.data_collator

    def marking(given):
        batch = plain(given)
        examples = trainer.quantities.layout.examples(batch)
        return batch | {COUNTED: torch.arange(examples) < 3}

    trainer.data_collator = marking
    loss, found = step_gradients(trainer, rows, 5)
    assert loss == pytest.approx(expected_loss, rel=1e-5, abs=1e-6)
    assert_same_gradients(found, expected, 1e-4)
    again = trainer._means["train"].take(trainer.accelerator)
    assert again == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in logged.items()}


def trained(folder, name, micro, processes=1, pairs=False, resumed=None, saved=False, **settings):
    """Two epochs of 21 rows in steps of 16; the second step of each has five rows."""
    method, values, start, policy, rows = case(name, 21, pairs)
    seen = Gradients()
    settings = {"max_steps": 4, "speed": WHOLE, **settings}
    trainer = trainer_for(
        folder, method, values, rows, policy, start, callbacks=[seen], optim="sgd", learning_rate=0.1,
        per_device_train_batch_size=micro, gradient_accumulation_steps=16 // (micro * processes),
        max_grad_norm=1e9, **settings,
    )  # fmt: skip
    if saved:
        trainer.args.save_strategy, trainer.args.save_steps = "steps", 1
    trainer.train(resume_from_checkpoint=resumed)
    return trainer, seen.steps


def log_of(trainer):
    return [
        {key: value for key, value in row.items() if not key.startswith("train_") and key != "epoch"}
        for row in trainer.state.log_history
        if "loss" in row
    ]


def whole(tensors):
    return {name: getattr(tensor, "full_tensor", lambda t=tensor: t)() for name, tensor in tensors.items()}


def assert_two_train_like_one(tmp_path, name, micro, sharded=False, budget=None, **settings):
    def work(rank):
        more = settings | ({"speed": SpeedSettings(token_budget=budget)} if budget else {})
        trainer, steps = trained(tmp_path, name, micro, 2, **more)
        weights = whole(trainer.model.state_dict())
        torch.save((log_of(trainer), [*map(whole, steps)], weights), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=sharded)
    trainer, expected = trained(tmp_path / "one", name, 16, **settings)
    assert len(expected) == 4
    for rank in range(2):
        log, steps, weights = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for ours, theirs in zip(steps, expected, strict=True):
            assert max(gradient.norm() for gradient in theirs.values()) > 1e-6
            assert_same_gradients(ours, theirs, 1e-5)
        for one, other in zip(log, log_of(trainer), strict=True):
            assert one == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in other.items()}
        for key, value in trainer.model.state_dict().items():
            assert torch.allclose(weights[key], value, rtol=1e-5, atol=1e-8), key


@pytest.mark.parametrize("micro", [8, 4])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_an_epoch_like_one(tmp_path, name, micro):
    """Of five rows the first process has five or four of its own, the second none or one."""
    assert_two_train_like_one(tmp_path, name, micro)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["cpo", "pl_dpo"])
def test_so_they_do_in_pieces_sharded_or_not(tmp_path, name, sharded):
    assert_two_train_like_one(tmp_path, name, 8, sharded=sharded, budget=25)


def test_of_pairs_that_are_two_examples_both_count_or_none(tmp_path):
    assert_two_train_like_one(tmp_path, "apo_zero_unpaired", 4, pairs=True)


def test_a_run_that_goes_on_within_the_epoch_ends_it_like_one(tmp_path):
    folder = tmp_path / "out" / "checkpoint-1"

    def work(rank):
        trained(tmp_path, "dpo", 8, 2, saved=True, max_steps=4)
        trainer, steps = trained(tmp_path, "dpo", 8, 2, resumed=str(folder))
        torch.save((steps, trainer.model.state_dict()), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work)
    trainer, expected = trained(tmp_path / "one", "dpo", 16)
    for rank in range(2):
        steps, weights = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert len(steps) == 3
        for ours, theirs in zip(steps, expected[1:], strict=True):
            assert_same_gradients(ours, theirs, 1e-5)
        for key, value in trainer.model.state_dict().items():
            assert torch.allclose(weights[key], value, rtol=1e-5, atol=1e-8), key


@pytest.mark.parametrize("name", ["kto", "beta_dpo", "aot", "bco_pair"])
def test_a_loss_that_compares_examples_keeps_the_repeats(name):
    samples = [{}]
    assert marked(samples, METHODS[name], SimpleNamespace(end_of_dataloader=True)) is samples
