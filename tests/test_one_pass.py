"""The head's one-pass form in the trainer: where a loss is separable, with the gradients of two passes."""

import pytest
from test_trainer_all_methods import ALL, values_of
from tiny_models import assert_same_gradients
from tiny_training import preference_trainer, random_pairs, tiny_llama
from trainer_cases import rows_for, small_llama, start_and_policy, step_gradients, trainer_for

from po.methods import resolve
from po.settings import SpeedSettings
from po.training.one_pass import is_separable
from po.training.quantities import Quantities

SEPARABLE = [name for name in ALL if is_separable(resolve(name), Quantities(*values_of(name)))]
PLAIN = SpeedSettings(sharing="off", head="recompute", token_budget=10**9)


def test_most_methods_are_separable_and_coupled_ones_are_not():
    assert {"dpo", "simpo", "cpo", "ipo", "sft"} <= {*SEPARABLE}
    assert not [name for name in SEPARABLE if resolve(name).batch_coupled]
    assert len(SEPARABLE) > 20


@pytest.mark.parametrize("name", SEPARABLE)
def test_one_pass_and_two_give_the_same_gradients(tmp_path, name, monkeypatch):
    calls = []
    from po.engine import forward

    whole = forward.fused_rows
    monkeypatch.setattr(forward, "fused_rows", lambda *a, **k: calls.append(1) or whole(*a, **k))
    method, values = values_of(name)
    start, policy = start_and_policy(method, values, small_llama())
    rows = rows_for(method, values, 8, start)
    loss, found = step_gradients(trainer_for(tmp_path, method, values, rows, policy, start), rows, 8)
    assert calls
    calls.clear()
    slow = trainer_for(tmp_path, method, values, rows, policy, start, speed=PLAIN)
    expected_loss, expected = step_gradients(slow, rows, 8)
    assert not calls
    assert loss == pytest.approx(expected_loss, rel=1e-5, abs=1e-5)
    assert_same_gradients(found, expected, 1e-4)


def test_under_fp16_the_head_computes_again(tmp_path, monkeypatch):
    """One pass has the head's gradients before the loss is scaled, so small ones would be rounded away."""
    calls = []
    from po.engine import forward

    whole = forward.fused_rows
    monkeypatch.setattr(forward, "fused_rows", lambda *a, **k: calls.append(1) or whole(*a, **k))
    for fp16, expected in ((True, 0), (False, 1)):
        calls.clear()
        trainer = preference_trainer(tmp_path, tiny_llama(), random_pairs(8), "simpo", fp16=fp16)
        trainer.train()
        assert len(calls) == expected
        assert trainer.accelerator.mixed_precision == ("fp16" if fp16 else "no")


@pytest.mark.parametrize("speed", [None, PLAIN])
def test_what_is_looked_at_is_measured_where_a_line_is_written(tmp_path, speed):
    trainer = preference_trainer(
        tmp_path, tiny_llama(), random_pairs(12), "simpo", speed=speed, max_steps=4, logging_steps=2
    )
    seen = []
    whole = trainer.quantities.of
    trainer.quantities.of = lambda batch, policy, *more: (
        seen.append("mean_logit" in policy) or whole(batch, policy, *more)
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "logits/chosen" in line]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"logits/rejected", "entropy/chosen", "entropy/rejected"} <= set(lines[0])
    assert 0 < lines[0]["entropy/chosen"] < 1
    assert True in seen and False in seen
