"""Causal language models of many architectures: the engine against full logits, and a step of training."""

import math

import pytest
import torch
from tiny_models import CAUSAL, DENSE, SCALED, WINDOW, assert_same_gradients, gradients, tiny, with_reference
from tiny_training import EOS, preference_trainer, random_pairs

from po.engine.forward import attach_engine, completion_logps, completion_values
from po.engine.token_values import Asked
from po.models.loading import disable_dropout
from po.training.collate import Collator

SIDES = ("chosen_ids", "rejected_ids")

pytestmark = pytest.mark.filterwarnings("ignore:.*changes the logits of its head")


@pytest.fixture
def rows():
    return random_pairs(20)


@pytest.fixture(params=CAUSAL)
def model(request):
    return tiny(request.param)


def plain_tables(model, rows):
    """Log-softmax of full logits, one row at a time without padding; each with its prompt and completion."""
    for side in SIDES:
        for row in rows:
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            yield model(input_ids=ids).logits[0].float().log_softmax(dim=-1), row["prompt_ids"], row[side]


def completion_part(table, prompt, completion):
    """The distributions that predict a completion, and the log-probabilities of its tokens."""
    predicting = table[len(prompt) - 1 : -1]
    return predicting, predicting[torch.arange(len(completion)), completion]


def plain_logps(model, rows):
    return torch.stack([completion_part(*found)[1].sum() for found in plain_tables(model, rows)])


def test_values_and_gradients_are_those_of_a_plain_log_softmax(model, rows):
    expected = plain_logps(model, rows)
    weights = torch.linspace(-1, 1, len(expected))
    expected_gradients = gradients(model, (expected * weights).sum())
    found, lengths = completion_logps(attach_engine(model), Collator()(rows))
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)
    assert (expected / lengths).std() > 0.1  # so a token at a wrong place would be seen
    assert_same_gradients(gradients(model, (found * weights).sum()), expected_gradients, 1e-4)


@torch.no_grad()
def test_neither_padding_nor_the_rest_of_the_batch_changes_a_value(model, rows):
    attach_engine(model)
    batch = Collator()(rows)
    found, _ = completion_logps(model, batch)
    wider = {n: v if v.dim() == 1 else torch.nn.functional.pad(v, (0, 7)) for n, v in batch.items()}
    wider["input_ids"][wider["attention_mask"] == 0] = 17
    assert torch.allclose(completion_logps(model, wider)[0], found, rtol=0, atol=5e-5)
    alone = [completion_logps(model, Collator()([row]))[0] for row in rows]
    assert torch.allclose(torch.stack(alone, dim=1).flatten(), found, rtol=0, atol=5e-5)


@torch.no_grad()
def test_what_else_is_asked_for_agrees_with_full_logits(model, rows):
    everything = [(completion_part(*found), *found) for found in plain_tables(model, rows)]
    attach_engine(model)
    asked = Asked(collision=True, entropy=True, tokens=True, prompt=True, distributions=True)
    found, lengths = completion_values(model, Collator()(rows), asked)
    assert torch.allclose(found["distributions"], torch.cat([e[0][0] for e in everything]), atol=5e-5)
    assert found["prompt_length"].tolist() == [len(prompt) - 1 for _, _, prompt, _ in everything]
    for row, ((predicting, logps), table, prompt, _) in enumerate(everything):
        spread = {
            "collision": predicting.exp().square().sum(dim=-1).log().mean(),
            "entropy": -(predicting.exp() * predicting).sum(dim=-1).mean() / math.log(predicting.shape[1]),
            "prompt_logps": table[torch.arange(len(prompt) - 1), prompt[1:]].sum(),
            "logps": logps.sum(),
        }
        for name, value in spread.items():
            assert found[name][row].item() == pytest.approx(value.item(), abs=1e-4), name
        assert torch.allclose(found["token_logps"][row, : lengths[row]], logps, rtol=0, atol=5e-5)
        assert not found["token_logps"][row, lengths[row] :].any()


@torch.no_grad()
def test_the_kl_to_a_reference_is_that_of_the_full_distributions(model, rows):
    batch = Collator()(rows)
    other = attach_engine(tiny(model.config.model_type, seed=1))
    reference = completion_values(other, batch, Asked(distributions=True))[0]["distributions"]
    ours = torch.cat([completion_part(*found)[0] for found in plain_tables(model, rows)])
    each = (reference.exp() * (reference - ours)).sum(dim=-1)
    lengths = batch["completion_mask"].sum(dim=1).tolist()
    expected = torch.stack([part.sum() for part in each.split(lengths)])
    found, _ = completion_values(
        attach_engine(model), batch, Asked(kl=True), reference_distributions=reference
    )
    assert torch.allclose(found["kl"], expected, rtol=1e-5, atol=1e-4)
    assert expected.min() > 0.1


@torch.no_grad()
def test_a_model_in_bf16_gives_float32_log_probabilities_near_the_exact_ones(model, rows):
    batch = Collator()(rows)
    exact, lengths = completion_logps(attach_engine(model), batch)
    found, _ = completion_logps(model.to(torch.bfloat16), batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.to(torch.bfloat16).float())  # sums finer than bf16 has them
    assert ((found - exact).abs() / lengths).median() < 0.1


@pytest.mark.parametrize("method", ["dpo", "simpo"])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_step_of_training_starts_right_and_moves_the_weights(tmp_path, name, method):
    model, rows = tiny(name), random_pairs(8)
    disable_dropout(model)
    rows = with_reference(rows, model) if method == "dpo" else rows
    trainer = preference_trainer(tmp_path, model, rows, method, per_device_train_batch_size=8)
    trainer.train()
    log = trainer.state.log_history[0]
    if method == "dpo":
        assert log["loss"] == pytest.approx(math.log(2), abs=1e-5)
    else:
        found, lengths = (
            value.detach() for value in completion_logps(attach_engine(model), Collator()(rows))
        )
        chosen, rejected = (found / lengths).chunk(2)
        values = {"policy_chosen": chosen, "policy_rejected": rejected}
        entry = trainer.method
        expected = entry.loss(**values, **entry.loss_arguments(trainer.params)).mean()
        assert log["loss"] == pytest.approx(expected.item(), abs=1e-4)
    before, after = dict(model.named_parameters()), dict(trainer.model.named_parameters())
    assert sum(not torch.equal(before[name], after[name]) for name in after) > len(after) / 2


@pytest.mark.parametrize("name", [*DENSE, "mixtral"])
def test_gradient_checkpointing_changes_no_gradient(name, rows):
    model, batch = attach_engine(tiny(name)), Collator()(rows)
    disable_dropout(model)
    model.train()
    expected = gradients(model, completion_logps(model, batch)[0].sum())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    assert_same_gradients(gradients(model, completion_logps(model, batch)[0].sum()), expected, 1e-5)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_training_with_gradient_checkpointing_gives_the_same_weights(tmp_path, name):
    model, rows = tiny(name), random_pairs(8)
    disable_dropout(model)
    how = {"optim": "sgd", "learning_rate": 0.01, "router_aux_loss_coef": 0.5, "max_steps": 2}
    trainers = [
        preference_trainer(tmp_path, model, rows, "simpo", gradient_checkpointing=saving, **how)
        for saving in (False, True)
    ]
    for trainer in trainers:
        trainer.train()
    plain, saving = (trainer.model for trainer in trainers)
    assert saving.is_gradient_checkpointing and not plain.is_gradient_checkpointing
    for name, weights in plain.named_parameters():
        assert torch.allclose(dict(saving.named_parameters())[name], weights, rtol=0, atol=1e-6), name


def test_the_window_of_gemma_2_is_shorter_than_the_rows_and_felt(rows):
    model, longest = tiny("gemma2"), Collator()(rows)["input_ids"].shape[1]
    assert WINDOW < longest
    narrow = plain_logps(model, rows)
    wide = tiny("gemma2", sliding_window=64)
    assert (plain_logps(wide, rows) - narrow).abs().max() > 0.1
    assert torch.allclose(completion_logps(attach_engine(wide), Collator()(rows))[0], plain_logps(wide, rows))


@pytest.mark.parametrize("name", SCALED)
def test_a_head_that_is_not_known_is_left_to_the_model_with_a_warning(name, rows):
    model = tiny(name)
    expected = plain_logps(model, rows)
    with pytest.warns(
        UserWarning, match=f"{type(model).__name__} changes the logits .* its own logits are used"
    ):
        attach_engine(model)
    assert not model._own_head
    found, _ = completion_logps(model, Collator()(rows))
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", DENSE)
def test_a_known_head_is_run_for_scored_tokens_only(name):
    model, seen = attach_engine(tiny(name)), []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    row = {"prompt_ids": [5, 6, 7, 8], "chosen_ids": [9, EOS], "rejected_ids": [10, EOS]}
    completion_logps(model, Collator()([row]))
    assert seen == [(4, model.config.hidden_size)]
