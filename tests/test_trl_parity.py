"""Our losses, log-probabilities and logged metrics against TRL's trainers: one step on the same pairs."""

import copy

import pytest
from datasets import Dataset
from test_trainer_invariants import moved, with_reference
from tiny_training import make_experiment, preference_trainer, random_pairs, tiny_llama
from transformers import AutoTokenizer

trl = pytest.importorskip("trl")

SAME_NAMES = ("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_experiment(root)
    return AutoTokenizer.from_pretrained(root / "data" / "tiny.toy--0" / "tokenizer")


@pytest.fixture(scope="module")
def texts():
    """Pairs as TRL takes them: texts whose last token, EOS, TRL adds itself."""
    return [
        {
            "prompt": " ".join(f"w{i}" for i in row["prompt_ids"]) + " ",
            "chosen": " ".join(f"w{i}" for i in row["chosen_ids"][:-1]),
            "rejected": " ".join(f"w{i}" for i in row["rejected_ids"][:-1]),
        }
        for row in random_pairs(8)
    ]


def settings(tmp_path, **changes):
    return {
        "output_dir": str(tmp_path / "trl"),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }


def first_row(trainer):
    trainer.train()
    return trainer.state.log_history[0]


def assert_same(ours, theirs, names=SAME_NAMES):
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize(
    ("method", "params", "loss_type"),
    [
        ("dpo", {"beta": 0.3}, "sigmoid"),
        ("slic_dpo", {"beta": 0.3, "delta": 1.0}, "hinge"),
        ("ipo", {"tau": 0.3}, "ipo"),
    ],
)
def test_anchored_losses_are_those_of_dpo_trainer(tmp_path, tokenizer, texts, method, params, loss_type):
    start = tiny_llama()
    policy = moved(start)
    config = trl.DPOConfig(**settings(tmp_path), beta=0.3, loss_type=loss_type)
    theirs = trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(start),
        args=config,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    ids = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [{name: row[name] for name in ids} for row in theirs.train_dataset]
    assert rows == random_pairs(8)
    expected = first_row(theirs)
    ours = first_row(
        preference_trainer(
            tmp_path, policy, with_reference(rows, start), method, params, per_device_train_batch_size=8
        )
    )
    if method == "ipo":  # TRL logs summed rewards for the loss that averages
        assert_same(ours, expected, ("loss", "logps/chosen", "logps/rejected", "grad_norm"))
        assert 0.3 * ours["logratio/chosen"] == pytest.approx(expected["rewards/chosen"], abs=1e-5)
    else:
        assert_same(ours, expected, (*SAME_NAMES, "logps/chosen", "logps/rejected", "grad_norm"))


@pytest.mark.parametrize(
    ("method", "params", "loss_type", "alpha"),
    [
        ("cpo", {"beta": 0.3, "nll_weight": 0.7}, "sigmoid", 0.7),
        ("slic", {"beta": 0.3, "delta": 1.0, "nll_weight": 0.7}, "hinge", 0.7),
        ("simpo", {"beta": 2.0, "gamma": 0.5, "nll_weight": 0.0}, "simpo", 0.0),
        ("cpo_simpo", {"beta": 2.0, "gamma": 0.5, "nll_weight": 0.7}, "simpo", 0.7),
    ],
)
def test_reference_free_losses_are_those_of_cpo_trainer(
    tmp_path, tokenizer, texts, method, params, loss_type, alpha
):
    cpo = pytest.importorskip("trl.experimental.cpo")
    policy = tiny_llama()
    config = cpo.CPOConfig(
        **settings(tmp_path), beta=params["beta"], loss_type=loss_type, cpo_alpha=alpha, simpo_gamma=0.5
    )
    theirs = cpo.CPOTrainer(
        model=copy.deepcopy(policy),
        args=config,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    rows = [as_ids(row) for row in theirs.train_dataset]
    expected = first_row(theirs)
    ours = first_row(
        preference_trainer(tmp_path, policy, rows, method, params, per_device_train_batch_size=8)
    )
    # Its logps are not compared: with simpo it logs averages under that name.
    assert_same(ours, expected, (*SAME_NAMES, "grad_norm"))
    if alpha:
        assert ours["nll_loss"] == pytest.approx(expected["nll_loss"], rel=1e-5)


def as_ids(row):
    """A row of CPOTrainer's data: labels are -100 on the prompt."""

    def completion(side):
        return [token for token in row[f"{side}_labels"] if token != -100]

    prompt = row["chosen_input_ids"][: len(row["chosen_input_ids"]) - len(completion("chosen"))]
    return {"prompt_ids": prompt, "chosen_ids": completion("chosen"), "rejected_ids": completion("rejected")}
