"""Models that read pictures: prompts, tensors, the engine, training."""

import io
import math

import pytest
import torch
from tiny_models import assert_same_gradients, gradients, tiny, with_reference
from tiny_training import preference_trainer
from tiny_vision import (
    IMAGE,
    TOKENS_A_PICTURE,
    picture_pairs,
    pictures,
    processor,
    tiny_gemma3,
    tiny_llava,
    tiny_qwen2_vl,
)
from transformers import PaliGemmaForConditionalGeneration

from po.data.tokenize import completion_ids
from po.engine.forward import attach_engine, completion_logps
from po.engine.images import ImageTensors, ImageTokenizer, prompt_with_images, token_marks
from po.faults import InputFault
from po.models.loading import disable_dropout
from po.references.mismatch import with_mismatched
from po.references.values import reference_values, with_values
from po.rows import rows_digest
from po.training.collate import Collator

IMAGES_OF_A_ROW = [IMAGE] * TOKENS_A_PICTURE


@pytest.fixture
def model():
    return tiny_llava()


@pytest.fixture
def images(model):
    return ImageTensors.of(processor(), model)


@pytest.fixture
def rows():
    return picture_pairs(pictures(8))


def plain_logps(model, rows, images):
    """Row by row, full logits; marks of image tokens as processors give them."""
    found = []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            prompt, completion = row["prompt_ids"], row[side]
            ids = torch.tensor([prompt + completion])
            more = images(row["images"]) | token_marks(model, ids) if row["images"] else {}
            table = model(input_ids=ids, **more).logits[0].float().log_softmax(dim=-1)
            found.append(sum(table[len(prompt) - 1 + i, token] for i, token in enumerate(completion)))
    return torch.stack(found)


def test_values_and_gradients_are_those_of_the_plain_forward(model, images, rows):
    assert {len(row["images"]) for row in rows} == {0, 1, 2}
    expected = plain_logps(model, rows, images)
    expected_gradients = gradients(model, expected.square().mean())
    found, _ = completion_logps(attach_engine(model), Collator(images=images)(rows))
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)
    found_gradients = gradients(model, found.square().mean())
    assert_same_gradients(found_gradients, expected_gradients, 1e-4)
    assert any("vision_tower" in name and gradient.any() for name, gradient in found_gradients.items())


@torch.no_grad()
def test_the_pictures_are_looked_at_and_stay_with_their_rows(model, images, rows):
    attach_engine(model)
    found = completion_logps(model, Collator(images=images)(rows))[0].view(2, -1)
    others = [row | {"images": pictures(len(row["images"]), seed=9)} for row in rows[:1]] + rows[1:]
    changed = completion_logps(model, Collator(images=images)(others))[0].view(2, -1)
    assert ((found - changed).abs()[:, 0] > 1e-3).all()
    assert torch.allclose(found[:, 1:], changed[:, 1:], rtol=0, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "name"), [(tiny_gemma3, "token_type_ids"), (tiny_qwen2_vl, "mm_token_type_ids")]
)
def test_models_that_want_image_tokens_marked_are_told(build, name):
    model, pixels, images = build()
    rows = picture_pairs(pixels, counts=(1,))
    assert list(token_marks(model, torch.tensor([[7, IMAGE, 7]]))) == [name]
    expected = plain_logps(model, rows, images)
    found, _ = completion_logps(attach_engine(model), Collator(images=images)(rows))
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)


def test_dpo_trains_on_rows_with_pictures(tmp_path, model, images, rows):
    disable_dropout(model)
    rows = with_reference(rows, model, images)
    stored = torch.tensor([row["reference_logps"] for row in rows]).T.flatten()
    assert torch.allclose(stored, plain_logps(model, rows, images), rtol=0, atol=5e-5)
    trainer = preference_trainer(
        tmp_path,
        model,
        rows,
        "dpo",
        images=images,
        per_device_train_batch_size=4,
        gradient_checkpointing=True,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    before = dict(model.named_parameters())
    changed = {
        name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])
    }
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        assert any(part in name for name in changed), part


def test_completions_of_other_prompts_are_read_with_the_pictures_of_their_own(tmp_path, model, images, rows):
    disable_dropout(model)
    rows = with_mismatched(rows)
    found = reference_values(model, rows, "fp32", ("logps", "mismatched_logps"), images=images)
    foreign = [row | {"chosen_ids": row["mismatched_ids"][0], "rejected_ids": [9]} for row in rows]
    expected = plain_logps(model, foreign, images)[: len(rows)]
    assert torch.allclose(torch.tensor(found["mismatched_logps"][:, 0]), expected, rtol=0, atol=5e-5)
    trainer = preference_trainer(tmp_path, model, with_values(rows, found), "kto", images=images)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.5, abs=1e-5)


def test_rows_with_pictures_need_something_that_reads_them(rows):
    with pytest.raises(InputFault, match="the rows have images and nothing reads them"):
        Collator()(rows)


def test_reference_values_of_other_pictures_are_of_other_rows():
    row = {"prompt_ids": [7, IMAGE], "completion_ids": [8]}
    digests = [
        rows_digest([row | more]) for more in ({}, {"images": []}, {"images": ["a"]}, {"images": ["b"]})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_pictures_come_as_paths_pictures_or_bytes(tmp_path, images):
    (picture,) = pictures(1)
    picture.save(tmp_path / "a.png")
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    forms = [
        picture,
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        {"bytes": encoded.getvalue(), "path": None},
    ]
    pixels = images(forms)["pixel_values"]
    assert pixels.shape == (4, 3, 8, 8) and pixels.std() > 0.1
    assert all(torch.equal(one, pixels[0]) for one in pixels)
    assert images([]) == {}


def test_a_picture_that_cannot_be_read_is_named(tmp_path, images):
    (tmp_path / "text.png").write_text("no picture")
    for path in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(InputFault, match=f"the image {path} cannot be read"):
            images([path])
    with pytest.raises(InputFault, match="an image is a int; give a path"):
        images([7])


def test_models_that_cannot_take_pictures_here_are_refused(model):
    with pytest.raises(InputFault, match="LlamaForCausalLM takes no images"):
        ImageTensors.of(processor(), tiny("llama"))
    paligemma = PaliGemmaForConditionalGeneration.__new__(PaliGemmaForConditionalGeneration)
    torch.nn.Module.__init__(paligemma)
    paligemma.config = PaliGemmaForConditionalGeneration.config_class()
    with pytest.raises(InputFault, match="PaliGemmaForConditionalGeneration needs token_type_ids"):
        ImageTensors.of(processor(), paligemma)


def test_a_prompt_holds_as_many_image_tokens_as_the_model_has_features(model, images):
    seen = pictures(2)
    plain = processor(chat=False)
    assert prompt_with_images(plain, "w7 <image> w8", seen[:1]) == [7, *IMAGES_OF_A_ROW, 8]
    assert prompt_with_images(plain, "w7 w8", seen) == [*IMAGES_OF_A_ROW, *IMAGES_OF_A_ROW, 7, 8]
    assert prompt_with_images(plain, "w7 w8", []) == [7, 8]
    ids = torch.tensor([prompt_with_images(plain, "w7 <image> w8 <image>", seen)])
    assert torch.isfinite(model(input_ids=ids, **images(seen)).logits).all()


def test_a_conversation_has_its_images_where_it_says_or_in_front(images):
    seen, chat = pictures(1), processor()
    parts = [{"type": "text", "text": "w9"}, {"type": "image"}]
    said = [{"role": "system", "content": "w8"}, {"role": "user", "content": parts}]
    assert prompt_with_images(chat, said, seen) == [1, 6, 8, 4, 9, *IMAGES_OF_A_ROW, 5]
    silent = [said[0], {"role": "user", "content": "w9"}]
    assert prompt_with_images(chat, silent, seen) == [1, 6, 8, 4, *IMAGES_OF_A_ROW, 9, 5]
    assert prompt_with_images(chat, "w9", seen) == [1, 4, *IMAGES_OF_A_ROW, 9, 5]


@pytest.mark.parametrize("chat", [True, False])
def test_a_completion_stands_behind_the_prompt_with_its_images(chat):
    tokenizer = ImageTokenizer(processor(chat=chat), pictures(1))
    assert completion_ids(tokenizer, "w9", "w10 w11") == [10, 11, 2]


def test_places_and_images_must_agree():
    with pytest.raises(InputFault, match="the prompt has 2 places for images .* and 1 images"):
        prompt_with_images(processor(chat=False), "<image> <image>", pictures(1))
