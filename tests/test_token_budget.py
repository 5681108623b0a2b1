"""Micro-batches are computed in pieces of a token budget; what comes out does not depend on it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_models import tiny
from tiny_training import preference_trainer, random_pairs, tiny_llama
from trainer_cases import (
    Gradients,
    assert_same_gradients,
    plain_rows,
    rows_for,
    small_llama,
    start_and_policy,
    trainer_for,
)
from two_processes import in_two_processes

from po.methods import METHODS, resolve
from po.settings import SpeedSettings
from po.training.collate import Collator
from po.training.layouts import LAYOUTS
from po.training.pieces import can_be_split, cut, examples_of, part_of, tokens_of
from po.training.piecewise import obstacle

FORMS = {"paired": "soft_dpo", "unpaired": "apo_zero_unpaired", "ranked": "pl_dpo", "supervised": "sft"}
CASES = {
    "dpo": {"beta": 0.5},
    "cpo": {"nll_weight": 0.7},
    "orpo": {"nll_scope": "prompt_and_completion"},
    "ld_dpo": {"alpha": 0.3},
    "tdpo2": {},
    "apo_zero_unpaired": {},
    "pl_dpo": {},
    "sft": {},
}
STEPS = 3


def batch_of(form, n=9, shared_prompts=True):
    rows = plain_rows(form, n)
    if shared_prompts:
        rows = [row | {"prompt_ids": rows[i // 2]["prompt_ids"]} for i, row in enumerate(rows)]
    method = METHODS[FORMS[form]]
    collator = Collator.of(method, method.check_params({}))
    return rows, collator, collator(rows)


@pytest.mark.parametrize("budget", [1, 30, 60, 10_000])
@pytest.mark.parametrize("form", FORMS)
def test_a_piece_is_what_the_collator_makes_of_its_examples(form, budget):
    rows, collator, batch = batch_of(form)
    pieces = cut(examples_of(batch, LAYOUTS[form], shared=True), budget)
    assert sorted(e.index for piece in pieces for e in piece) == list(range(len(rows)))
    assert len(pieces) == {1: len(rows), 10_000: 1}.get(budget, len(pieces))
    for piece in pieces:
        found = part_of(batch, piece)
        expected = collator([rows[i] for i in sorted(e.index for e in piece)])
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


def test_stored_values_of_tokens_are_cut_to_the_longest_completion():
    method = METHODS["ld_dpo"]
    values = method.check_params({})
    rows = rows_for(method, values, 6, tiny_llama())
    collator = Collator.of(method, values)
    batch = collator(rows)
    for piece in cut(examples_of(batch, LAYOUTS["paired"], shared=True), 30):
        expected = collator([rows[i] for i in sorted(e.index for e in piece)])
        assert torch.equal(part_of(batch, piece)["reference_token_logps"], expected["reference_token_logps"])


def lengths(rows, shared):
    """Tokens of some pairs, written down without the splitting."""
    answers = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    prompts = [tuple(row["prompt_ids"]) for row in rows for _ in range(2)]
    return answers + sum(map(len, set(prompts) if shared else prompts))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [25, 40, 90])
def test_no_piece_has_more_tokens_than_the_budget_and_none_is_much_smaller(budget, shared):
    rows, _, batch = batch_of("paired", n=24)
    examples = examples_of(batch, LAYOUTS["paired"], shared=shared)
    pieces = cut(examples, budget)
    tokens = [lengths([rows[e.index] for e in piece], shared) for piece in pieces]
    assert tokens == [tokens_of(piece) for piece in pieces]
    single = max(lengths([row], shared) for row in rows)
    for piece, count in zip(pieces, tokens, strict=True):
        assert count <= budget or len(piece) == 1
    assert max(tokens) <= max(single, sum(tokens) / len(pieces) + single)
    assert len(pieces) <= 2 * sum(tokens) / budget + 1


def test_examples_with_one_prompt_stay_together_and_share_it():
    _, _, batch = batch_of("paired", n=4)
    examples = examples_of(batch, LAYOUTS["paired"], shared=True)
    assert [sorted(e.index for e in examples[i : i + 2]) for i in (0, 2)] in (
        [[0, 1], [2, 3]],
        [[2, 3], [0, 1]],
    )
    pair = examples[:2]
    assert tokens_of(pair) == sum(map(lambda e: tokens_of([e]), pair)) - sum(pair[0].prompts.values())


def test_the_number_of_pieces_can_be_told():
    """A sharded model runs equally often in every process, whatever the others have to do."""
    _, _, batch = batch_of("paired", n=8)
    examples = examples_of(batch, LAYOUTS["paired"], shared=True)
    for count in (1, 3, 8):
        pieces = cut(examples, 50, lambda needed, count=count: count)
        assert len(pieces) == count
        assert all(pieces) and sum(map(len, pieces)) == 8


def test_images_and_foreign_completions_belong_to_no_single_example():
    _, _, batch = batch_of("paired")
    assert can_be_split(batch)
    assert not can_be_split(batch | {"pixel_values": torch.zeros(3, 4)})
    assert not can_be_split(batch | {"mismatched_input_ids": batch["input_ids"]})
    assert not can_be_split(batch | {"completion_ids": batch["input_ids"]})


class Counted:
    """How many rows each forward pass of a trainer's model has."""

    def __init__(self, trainer):
        self.rows = []
        trainer.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        if module.training and "completion_mask" in kwargs:
            self.rows.append(len(kwargs["completion_mask"]))


def trained(tmp_path, name, budget, micro=8, n=11, steps=STEPS, speed=None, **more):
    """Steps of eight examples, the second of them an incomplete one."""
    method = resolve(name)
    values = method.check_params(CASES.get(name, {}))
    start, policy = start_and_policy(method, values, small_llama())
    rows = rows_for(method, values, n, start)
    seen = Gradients()
    settings = {"max_steps": steps, "learning_rate": 0.01, "gradient_accumulation_steps": 8 // micro}
    trainer = trainer_for(
        tmp_path, method, values, rows, policy, start, callbacks=[seen],
        per_device_train_batch_size=micro, speed=speed or SpeedSettings(token_budget=budget),
        **settings | more,
    )  # fmt: skip
    calls = Counted(trainer)
    trainer.train()
    return trainer, seen.steps, calls.rows


def log_of(trainer):
    logged = [row for row in trainer.state.log_history if "loss" in row]
    return [{k: v for k, v in row.items() if not k.startswith("train_") and k != "epoch"} for row in logged]


def assert_same_training(one, other, relative=1e-6):
    (ours, our_steps, _), (theirs, their_steps, _) = one, other
    for found, expected in zip(our_steps, their_steps, strict=True):
        assert max(gradient.norm() for gradient in expected.values()) > 1e-6
        assert_same_gradients(found, expected, relative)
    weights = theirs.model.state_dict()
    for name, found in ours.model.state_dict().items():
        assert torch.allclose(found, weights[name], rtol=relative, atol=1e-9), name
    for found, expected in zip(log_of(ours), log_of(theirs), strict=True):
        assert found == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in expected.items()}


@pytest.mark.parametrize("name", CASES)
def test_weights_and_log_do_not_depend_on_budget_and_micro_batch(tmp_path, name):
    whole = trained(tmp_path, name, 10_000)
    assert len(whole[2]) == STEPS
    for budget, micro in ((1, 8), (25, 8), (25, 4)):
        split = trained(tmp_path, name, budget, micro)
        assert len(split[2]) > {8: 3, 4: 5}[micro]
        assert sum(split[2]) == sum(whole[2])
        assert_same_training(split, whole)


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_padded_rows_count_their_own_prompts(tmp_path, sharing):
    speed = SpeedSettings(token_budget=40, sharing=sharing)
    found = trained(tmp_path, "dpo", None, speed=speed)
    assert_same_training(found, trained(tmp_path, "dpo", 10_000))
    shared = trained(tmp_path, "dpo", 40)
    assert (len(found[2]) > len(shared[2])) == (sharing == "off")


@pytest.mark.parametrize("name", ["kto", "bco_pair", "aot", "beta_dpo", "sampo", "mix(dpo, bco_pair)"])
def test_methods_that_compare_or_draw_see_the_whole_micro_batch(tmp_path, name):
    _, _, rows = trained(tmp_path, name, 1, n=8, steps=2)
    whole = 16 if resolve(name).data == "paired" else 8
    assert set(rows) == {whole}


def test_a_load_balancing_loss_sees_the_whole_micro_batch(tmp_path):
    rows = random_pairs(8)
    how = {"per_device_train_batch_size": 8, "speed": SpeedSettings(token_budget=1)}
    calls = []
    for coefficient in (0.1, 0.0):
        trainer = preference_trainer(
            tmp_path, tiny("mixtral"), rows, "simpo", router_aux_loss_coef=coefficient, **how
        )
        counted = Counted(trainer)
        trainer.train()
        calls.append(len(counted.rows))
    assert calls == [1, 8]


def test_an_encoder_decoder_sees_the_whole_micro_batch(tmp_path):
    how = {"per_device_train_batch_size": 8, "speed": SpeedSettings(token_budget=1)}
    trainer = preference_trainer(tmp_path, tiny("t5"), random_pairs(8), "simpo", **how)
    counted = Counted(trainer)
    trainer.train()
    assert len(counted.rows) == 1


def test_optimizers_and_engines_that_count_backward_passes_get_one():
    dpo = METHODS["dpo"]
    alone, deepspeed = (
        SimpleNamespace(distributed_type=kind) for kind in (DistributedType.NO, DistributedType.DEEPSPEED)
    )
    assert obstacle(dpo, alone, "adamw_torch_fused", router=False) is None
    assert "DeepSpeed" in obstacle(dpo, deepspeed, "adamw_torch_fused", router=False)
    for name in ("lomo", "adalomo", "galore_adamw_layerwise"):
        assert name in obstacle(dpo, alone, name, router=False)
    stateful = dataclasses.replace(dpo, state=METHODS["bco_pair"].state)
    assert stateful.batch_coupled is False
    assert "depend on the micro-batch" in obstacle(stateful, alone, "adamw_torch_fused", router=False)


def test_a_stopped_training_goes_on_with_another_budget(tmp_path):
    def run(folder, budget, micro, **how):
        method, values = METHODS["cpo"], METHODS["cpo"].check_params(CASES["cpo"])
        start, policy = start_and_policy(method, values, small_llama())
        trainer = trainer_for(
            folder, method, values, rows_for(method, values, 11, start), policy, start, max_steps=4,
            per_device_train_batch_size=micro, gradient_accumulation_steps=8 // micro, learning_rate=0.01,
            speed=SpeedSettings(token_budget=budget),
        )  # fmt: skip
        trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
        trainer.train(**how)
        return trainer.model.state_dict()

    expected = run(tmp_path / "whole", 10_000, 8)
    run(tmp_path / "split", 30, 4)
    found = run(tmp_path / "again", 55, 4, resume_from_checkpoint=str(tmp_path / "split/out/checkpoint-2"))
    for name, weights in expected.items():
        assert torch.allclose(found[name], weights, rtol=1e-6, atol=1e-9), name


def _of_two(folder, name, micro, budget):
    how = {"max_grad_norm": 1e9, "optim": "sgd", "learning_rate": 0.1, "gradient_accumulation_steps": 1}
    return trained(folder, name, budget, micro, n=32, steps=2, **how)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["cpo", "pl_dpo"])
def test_processes_may_need_different_numbers_of_pieces(tmp_path, name, sharded):
    """Of two processes each has four examples; the first has the smaller budget."""

    def work(rank):
        trainer, steps, rows = _of_two(tmp_path, name, 4, (25, 60)[rank])
        whole = [{n: getattr(g, "full_tensor", lambda g=g: g)() for n, g in step.items()} for step in steps]
        torch.save((len(rows), log_of(trainer), whole), tmp_path / f"{rank}.pt")

    in_two_processes(tmp_path, work, sharded=sharded)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    trainer, expected, _ = _of_two(tmp_path, name, 8, 10_000)
    assert (found[0][0] == found[1][0]) == sharded
    assert found[0][0] > 4
    for _, log, steps in found:
        for ours, theirs in zip(steps, expected, strict=True):
            assert_same_gradients(ours, theirs, 1e-5)
        for one, other in zip(log, log_of(trainer), strict=True):
            assert one == {key: pytest.approx(value, rel=1e-5, abs=1e-6) for key, value in other.items()}
