"""Pictures as a library: from texts and files to a step of training, and samples that see them."""

import json

import pytest
from tiny_library import library_trainer, train_logs
from tiny_vision import IMAGE, TOKENS_A_PICTURE, pictures, processor, tiny_llava

from po.faults import InputFault


def picture_texts(n=4):
    return [
        {
            "prompt": f"w{8 + i} w{20 + i}",
            "chosen": "w11 w12 w13",
            "rejected": f"w{14 + i}",
            "images": [image],
        }
        for i, image in enumerate(pictures(n))
    ]


@pytest.mark.parametrize("stored", [False, True])
def test_prompts_with_pictures_train(tmp_path, stored):
    trainer = library_trainer(
        tmp_path,
        picture_texts(),
        model=tiny_llava(),
        processing_class=processor(),
        precompute_ref_log_probs=stored,
        eval_rows=picture_texts(2),
        eval_strategy="steps",
        eval_steps=2,
        generate_during_eval=True,
    )
    row = trainer.train_dataset[0]
    assert row["prompt_ids"].count(IMAGE) == TOKENS_A_PICTURE
    logs = train_logs(trainer)
    assert abs(logs[0]["logratio/chosen"]) < 1e-5 < abs(logs[1]["logratio/chosen"])
    lines = (tmp_path / "out" / "samples" / "step-2.jsonl").read_text().splitlines()
    assert [json.loads(line)["chosen"] for line in lines] == ["w11 w12 w13"] * 2


def test_a_sample_sees_its_picture(tmp_path):
    rows = [picture_texts()[0] | {"images": [image]} for image in pictures(4, seed=3)]
    trainer = library_trainer(
        tmp_path,
        rows[:1],
        model=tiny_llava(),
        processing_class=processor(),
        eval_rows=rows,
        generate_during_eval=True,
    )
    table = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "SampleTable")
    assert len(set(table.sample(trainer.model))) > 1


def test_a_prompt_with_pictures_is_not_cut(tmp_path):
    with pytest.raises(InputFault, match="row 0 is too long, and a prompt with images cannot be cut"):
        library_trainer(
            tmp_path, picture_texts(), model=tiny_llava(), processing_class=processor(), max_prompt_length=4
        )
