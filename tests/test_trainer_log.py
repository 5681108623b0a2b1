"""The figures of an evaluation are its own, whoever asks for it; every line of the log is complete."""

import pytest
import torch
from tiny_training import preference_trainer, random_pairs, tiny_llama

from po.training.log import RunningMeans

LOOKED_AT = {"logits/chosen", "logits/rejected", "entropy/chosen", "entropy/rejected"}
TIMES = ("runtime", "per_second", "preparation_time")


def figures(metrics, prefix):
    """Without what takes its time, and without the prefix."""
    kept = {name: value for name, value in metrics.items() if not name.endswith(TIMES) and name != "epoch"}
    assert all(name.startswith(f"{prefix}_") for name in kept)
    return {name.removeprefix(f"{prefix}_"): value for name, value in kept.items()}


def evaluated(tmp_path, eval_rows):
    return preference_trainer(
        tmp_path, tiny_llama(), random_pairs(8), "simpo", eval_rows=eval_rows, per_device_eval_batch_size=2
    )


def test_an_evaluation_under_another_name_has_all_figures_and_leaves_none_to_the_next(tmp_path):
    rows, others = random_pairs(6, seed=5), random_pairs(4, seed=7)
    trainer = evaluated(tmp_path, rows)
    expected = figures(trainer.evaluate(), "eval")
    assert {"loss", "rewards/accuracies", "rewards/margins", "logps/chosen"} <= set(expected)
    test = figures(trainer.evaluate(others, metric_key_prefix="test"), "test")
    assert test == figures(evaluated(tmp_path, others).evaluate(), "eval") != expected
    assert trainer.state.log_history[-1]["test_rewards/margins"] == test["rewards/margins"]
    predicted = trainer.predict(others, metric_key_prefix="held_out")
    assert predicted.predictions is None
    assert figures(predicted.metrics, "held_out") == test
    assert figures(trainer.evaluate(), "eval") == expected


def test_an_evaluation_that_was_broken_off_leaves_nothing_to_the_next(tmp_path):
    trainer = evaluated(tmp_path, random_pairs(6, seed=5))
    expected = figures(trainer.evaluate(), "eval")
    with pytest.raises(KeyError):
        trainer.evaluate([*random_pairs(4), {}, {}])  # a batch is read before the one before is computed
    assert figures(trainer.evaluate(), "eval") == expected


def test_several_sets_under_another_name_have_their_own_figures(tmp_path):
    sets = {"easy": random_pairs(4, seed=5), "hard_loss": random_pairs(4, seed=6)}
    found = evaluated(tmp_path, None).evaluate(sets, metric_key_prefix="test")
    for name, rows in sets.items():
        expected = figures(evaluated(tmp_path, rows).evaluate(), "eval")
        assert {key: found[f"test_{name}_{key}"] for key in expected} == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"logging_steps": 0.25}, [2, 4, 6, 8]),
        ({"logging_steps": 3}, [3, 6]),
        ({"logging_steps": 3, "logging_first_step": True}, [1, 3, 6]),
        ({"logging_strategy": "epoch"}, [3, 6, 8]),  # 12 rows by 4; the last step ends the training too
    ],
)
def test_every_line_of_the_log_has_what_costs_time(tmp_path, settings, expected):
    trainer, measured = watched(tmp_path, settings)
    lines = {line["step"]: line for line in trainer.state.log_history if "loss" in line}
    assert list(lines) == expected
    assert all(set(line) >= LOOKED_AT for line in lines.values())
    assert measured == sorted({*expected, 8})  # and no other step was measured


def test_the_last_step_counts_as_logged_since_a_cell_logs_it(tmp_path):
    from transformers import TrainerCallback

    class Last(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_log |= state.global_step >= state.max_steps

    trainer, _ = watched(tmp_path, {"logging_steps": 3, "callbacks": [Last()]})
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert set(lines[-1]) >= LOOKED_AT


def test_a_run_without_lines_measures_the_last_step_alone(tmp_path):
    assert watched(tmp_path, {"logging_strategy": "no"})[1] == [8]


def watched(tmp_path, settings):
    """A training of eight steps, and the steps in which logits were looked at."""
    trainer = preference_trainer(
        tmp_path,
        tiny_llama(),
        random_pairs(12),
        "simpo",
        max_steps=8,
        per_device_train_batch_size=4,
        **settings,
    )
    measured, whole = [], trainer.quantities.of

    def of(batch, policy, *more):
        if "mean_logit" in policy:
            measured.append(trainer.state.global_step + 1)
        return whole(batch, policy, *more)

    trainer.quantities.of = of
    trainer.train()
    return trainer, sorted(set(measured))


class Alone:
    """An accelerator of one process."""

    def reduce(self, values, reduction):
        return values


def test_means_that_are_taken_back_are_those_of_before_however_often():
    means = RunningMeans()
    means.add("loss", torch.tensor([1.0, 3.0]))
    restore = means.snapshot()
    for _ in range(2):
        means.add("loss", torch.tensor([100.0]))
        means.add("other", torch.tensor([1.0]))
        restore()
    means.add("loss", torch.tensor([5.0]))
    assert means.take(Alone()) == {"loss": 3.0}
    restore()
    assert means.take(Alone()) == {"loss": 2.0}
