"""Tiny models that read pictures, with random weights; a processor for one of them; rows with pictures."""

import torch
from PIL import Image
from tiny_models import DECODER, DROPOUT, sharpened
from tiny_training import VOCABULARY, random_pairs
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

EOS, IMAGE = 2, 3
EDGE, PATCH = 8, 4
TOKENS_A_PICTURE = (EDGE // PATCH) ** 2
LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEMPLATE = (
    "<bos> {% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part is string %}{{ part }}{% elif part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% if message['role'] == 'assistant' %}<eos> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def tiny_llava(seed=0):
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(**LAYERS, image_size=EDGE, patch_size=PATCH, attention_dropout=DROPOUT)
    text = LlamaConfig(**DECODER)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1
    )
    return sharpened(LlavaForConditionalGeneration(config))


def tiny_gemma3():
    """The model, and what makes its tensors of lists of pixels."""
    torch.manual_seed(0)
    text = {**DECODER, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
    config = Gemma3Config(
        text_config=text,
        vision_config={**LAYERS, "image_size": 2 * EDGE, "patch_size": PATCH},
        mm_tokens_per_image=TOKENS_A_PICTURE,
        image_token_index=IMAGE,
    )
    model = sharpened(Gemma3ForConditionalGeneration(config))
    pixels = torch.randn(8, 3, 2 * EDGE, 2 * EDGE)
    return model, list(pixels), lambda images: {"pixel_values": torch.stack(images)}


def tiny_qwen2_vl():
    """The same; this one is told the patches of each picture."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    width = {"embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config={**DECODER, "rope_parameters": rope},
        vision_config={**width, "depth": 1, "patch_size": PATCH},
        image_token_id=IMAGE,
        vision_start_token_id=4,
        video_token_id=6,
    )
    model = sharpened(Qwen2VLForConditionalGeneration(config))

    def tensors(images):
        grid = torch.tensor([[1, 4, 4]] * len(images))
        return {"pixel_values": torch.cat(images), "image_grid_thw": grid}

    return model, list(torch.randn(8, 16, 3 * 2 * PATCH * PATCH)), tensors


def processor(*, chat=True):
    """Llava's, whose words are w7, w8 and so on."""
    words = ["<pad>", "<bos>", "<eos>", "<image>", "user", "assistant", "system"]
    words += [f"w{i}" for i in range(len(words), VOCABULARY)]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<image>"],
    )
    edges = {"height": EDGE, "width": EDGE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=edges, crop_size=edges),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE if chat else None,
    )


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, EDGE, EDGE, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]


def picture_pairs(images, counts=(1, 0, 2)):
    """Rows about so many pictures each, until there are no more; their tokens stand behind the first."""
    rows, left = [], list(images)
    for row in random_pairs(len(images), seed=1):
        n = counts[len(rows) % len(counts)]
        if n > len(left):
            break
        for key in ("prompt_ids", "chosen_ids", "rejected_ids"):
            row[key] = [token if token == EOS else max(token, 7) for token in row[key]]
        row["images"] = [left.pop() for _ in range(n)]
        row["prompt_ids"][1:1] = [IMAGE] * (TOKENS_A_PICTURE * n)
        rows.append(row)
    return rows
