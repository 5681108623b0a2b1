"""Training as a library: data forms, references, and that the trainer adds nothing to the loss."""

import copy

import pytest
import torch
from datasets import Dataset, IterableDataset
from tiny_library import CHAT, QUICK, library_trainer, text_pairs, train_logs, word_tokenizer
from tiny_training import preference_trainer, random_pairs, tiny_llama
from transformers import T5Config, T5ForConditionalGeneration

from po import METHODS, PreferenceConfig, PreferenceTrainer
from po.faults import InputFault
from po.references.sources import LiveReference, StoredReference

UNPAIRED = [
    {"prompt_ids": row["prompt_ids"], "completion_ids": row[f"{side}_ids"], "desirable": side == "chosen"}
    for row in random_pairs(6)
    for side in ("chosen", "rejected")
]
RANKED = [
    {"prompt_ids": a["prompt_ids"], "candidates_ids": [a["chosen_ids"], a["rejected_ids"], b["chosen_ids"]]}
    for a, b in zip(random_pairs(8), random_pairs(8, seed=1), strict=True)
]


def same_weights(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def losses(trainer):
    return [logs["loss"] for logs in train_logs(trainer)]


def test_training_is_that_of_the_trainer_below(tmp_path):
    rows = random_pairs(8)
    below = preference_trainer(
        tmp_path, tiny_llama(), rows, "simpo", max_steps=2, per_device_train_batch_size=4, seed=3
    )
    ours = library_trainer(tmp_path, rows, "simpo", seed=3, gradient_checkpointing=False)
    assert losses(ours) == losses(below)
    assert same_weights(ours.model, below.model)


def test_a_frozen_copy_is_the_reference_unless_one_is_given(tmp_path):
    start = tiny_llama()
    trainer = library_trainer(tmp_path, random_pairs(8))
    logs = train_logs(trainer)
    assert logs[0]["logratio/chosen"] == 0.0 and logs[1]["logratio/chosen"] != 0.0
    assert trainer.reference.model is not trainer.model
    assert same_weights(trainer.reference.model, start) and not same_weights(trainer.model, start)


def test_values_computed_before_training_give_the_same_training(tmp_path):
    rows, eval_rows = random_pairs(8), random_pairs(4, seed=5)
    settings = {"eval_strategy": "steps", "eval_steps": 1}
    live = library_trainer(tmp_path, rows, eval_rows=eval_rows, **settings)
    stored = library_trainer(tmp_path, rows, eval_rows=eval_rows, precompute_ref_log_probs=True, **settings)
    assert isinstance(live.reference, LiveReference) and isinstance(stored.reference, StoredReference)
    assert losses(stored) == pytest.approx(losses(live), rel=1e-6)
    assert stored.state.log_history[1]["eval_loss"] == pytest.approx(live.state.log_history[1]["eval_loss"])


def test_in_bfloat16_a_live_reference_is_computed_as_the_policy_is(tmp_path):
    trainer = library_trainer(tmp_path, random_pairs(8), bf16=True)
    assert train_logs(trainer)[0]["logratio/chosen"] == 0.0


def test_a_reference_that_is_given_is_asked(tmp_path):
    other = tiny_llama(seed=1)
    live = library_trainer(tmp_path, random_pairs(8), ref_model=copy.deepcopy(other))
    stored = library_trainer(
        tmp_path, random_pairs(8), ref_model=copy.deepcopy(other), precompute_ref_log_probs=True
    )
    first = train_logs(live)[0]
    assert abs(first["logratio/chosen"]) > 0.1
    assert train_logs(stored)[0]["loss"] == pytest.approx(first["loss"], rel=1e-6)
    assert live.reference_choice.description == "another model"


def test_models_may_be_given_by_their_path(tmp_path):
    tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    tiny_llama().save_pretrained(tmp_path / "start")
    word_tokenizer().save_pretrained(tmp_path / "start")
    here = {"model": str(tmp_path / "start"), "ref_model": str(tmp_path / "other")}
    trainer = library_trainer(tmp_path, text_pairs(), **here, model_init_kwargs={"dtype": "bfloat16"})
    assert trainer.model.dtype == torch.bfloat16 and trainer.reference.model.dtype == torch.bfloat16
    assert trainer.processing_class.eos_token == "<eos>"
    assert abs(train_logs(trainer)[0]["logratio/chosen"]) > 0.1


@pytest.mark.parametrize("method", ["tr_dpo", "tr_dpo(ipo)"])
def test_a_moving_reference_follows_the_policy(tmp_path, method):
    trainer = library_trainer(tmp_path, random_pairs(8), method, sync_steps=2, sync_mix=1.0)
    trainer.train()
    assert not same_weights(trainer.model, tiny_llama())
    assert same_weights(trainer.reference.model, trainer.model)


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("kto", UNPAIRED),
        ("kto", random_pairs(8)),
        ("bco", UNPAIRED),
        ("apo_zero_unpaired", UNPAIRED),
        ("pl_dpo", RANKED),
        ("sft", random_pairs(8)),
        ("tdpo2", random_pairs(8)),
        ("mallows_dpo", random_pairs(8)),
        ("mix(ipo, sft)", random_pairs(8)),
        ("wpo(simpo)", random_pairs(8)),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_methods_of_each_kind_train_and_evaluate(tmp_path, method, rows, stored):
    if stored and method in ("tdpo2", "sft", "wpo(simpo)"):
        pytest.skip("nothing to store: it asks its reference in every step, or has none")
    trainer = library_trainer(tmp_path, rows, method, eval_rows=rows[:4], precompute_ref_log_probs=stored)
    before = trainer.evaluate()["eval_loss"]
    assert len(train_logs(trainer)) == 2
    assert not same_weights(trainer.model, tiny_llama())
    assert trainer.evaluate()["eval_loss"] != before


def test_prompts_weigh_undesirable_completions_of_bco(tmp_path):
    trainer = library_trainer(tmp_path, UNPAIRED, "bco", udm=True, prompt_sample_size=4)
    ratios = [row["density_ratio"] for row in trainer.train_dataset]
    assert {ratio for (ratio,), row in zip(ratios, UNPAIRED, strict=True) if row["desirable"]} == {1.0}
    assert len(losses(trainer)) == 2


def test_texts_become_the_ids_of_their_words(tmp_path):
    dataset = Dataset.from_list(text_pairs())
    trainer = library_trainer(tmp_path, dataset, processing_class=word_tokenizer(bos=True))
    words = [
        word_tokenizer().decode(trainer.train_dataset[0][f"{part}_ids"]) for part in ("prompt", "chosen")
    ]
    assert words == [f"<bos> {dataset[0]['prompt']}", f"{dataset[0]['chosen']} <eos>"]
    assert len(losses(trainer)) == 2


def test_conversations_go_through_the_chat_template(tmp_path):
    rows = [
        {
            "chosen": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["chosen"]},
            ],
            "rejected": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["rejected"]},
            ],
        }
        for row in text_pairs()
    ]
    tokenizer = word_tokenizer(CHAT)
    trainer = library_trainer(tmp_path, Dataset.from_list(rows), processing_class=tokenizer)
    row = trainer.train_dataset[0]
    prompt = rows[0]["chosen"][0]["content"]
    assert tokenizer.decode(row["prompt_ids"]) == f"user : {prompt} assistant :"
    assert tokenizer.decode(row["chosen_ids"]) == f"{rows[0]['chosen'][1]['content']} <eos>"


def test_an_encoder_decoder_model_trains(tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    trainer = library_trainer(
        tmp_path, text_pairs(), model=T5ForConditionalGeneration(config), processing_class=word_tokenizer()
    )
    logs = train_logs(trainer)
    assert abs(logs[0]["logratio/chosen"]) < 1e-5 < abs(logs[1]["logratio/chosen"])


def test_several_evaluation_sets_are_told_apart_by_name(tmp_path):
    sets = {"easy": random_pairs(4, seed=5), "hard": random_pairs(4, seed=6)}
    trainer = library_trainer(tmp_path, random_pairs(8), eval_rows=sets)
    found = trainer.evaluate()
    assert found["eval_easy_logps/chosen"] != found["eval_hard_logps/chosen"]
    alone = library_trainer(tmp_path, random_pairs(8), eval_rows=sets["hard"]).evaluate()
    for name in ("loss", "logps/chosen", "rewards/accuracies"):
        assert found[f"eval_hard_{name}"] == alone[f"eval_{name}"]


def test_texts_can_be_predicted_and_give_the_figures_of_an_evaluation(tmp_path):
    texts = text_pairs()
    trainer = library_trainer(tmp_path, texts, eval_rows=texts, processing_class=word_tokenizer())
    found, expected = trainer.predict(texts).metrics, trainer.evaluate()
    for name in ("loss", "rewards/accuracies", "logps/chosen"):
        assert found[f"test_{name}"] == expected[f"eval_{name}"]


def test_a_new_data_set_can_be_evaluated_while_the_reference_is_there(tmp_path):
    rows = random_pairs(4, seed=5)
    trainer = library_trainer(tmp_path, random_pairs(8), eval_rows=rows)
    trainer.train()
    assert trainer.evaluate(random_pairs(4, seed=5))["eval_loss"] == trainer.evaluate()["eval_loss"]
    stored = library_trainer(tmp_path, random_pairs(8), precompute_ref_log_probs=True)
    with pytest.raises(InputFault, match="give the data set to the trainer when it is made"):
        stored.evaluate(rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "simpo", "ref_model": tiny_llama()},
            "simpo compares with no reference; leave ref_model out",
        ),
        ({"compute_metrics": print}, "compute_metrics would get no predictions"),
        ({"model_init_kwargs": {"dtype": "float32"}}, "this one is loaded"),
        ({"generate_during_eval": True}, "needs an eval_dataset and a tokenizer"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, given, message):
    method = given.pop("method", "dpo")
    with pytest.raises(InputFault, match=message):
        library_trainer(tmp_path, random_pairs(4), method, **given)


def test_the_model_cannot_be_its_own_reference(tmp_path):
    model = tiny_llama()
    with pytest.raises(InputFault, match="ref_model is the model itself"):
        library_trainer(tmp_path, random_pairs(4), model=model, ref_model=model)


def test_a_stream_is_refused(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter(text_pairs()))
    with pytest.raises(InputFault, match="train_dataset is a stream without a length"):
        library_trainer(tmp_path, stream, processing_class=word_tokenizer())


def test_training_that_is_resumed_ends_where_the_other_did(tmp_path):
    def made(folder):
        rows = random_pairs(8)
        return library_trainer(
            tmp_path / folder, rows, "tr_dpo", sync_steps=1, max_steps=4, save_strategy="steps", save_steps=2
        )

    whole, halted = made("whole"), made("halted")
    whole.train()
    halted.train()
    again = made("halted")
    again.train(resume_from_checkpoint=str(tmp_path / "halted" / "out" / "checkpoint-2"))
    assert same_weights(again.model, whole.model)
    assert same_weights(again.reference.model, whole.reference.model)


def test_a_trainer_without_settings_is_dpo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = PreferenceTrainer(tiny_llama(), train_dataset=random_pairs(4))
    assert trainer.method is METHODS["dpo"] and trainer.args.output_dir == "-dpo"
    assert PreferenceConfig("out", **QUICK).max_steps == 2
