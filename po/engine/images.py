"""Images of rows -> what a model's forward takes; prompts whose image tokens agree with it."""

import inspect
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from po.data.forms import Text
from po.data.tokenize import prompt_ids
from po.faults import InputFault

_MARKED = "mm_token_type_ids"
_MARKED_GEMMA3 = "token_type_ids"  # PaliGemma has the name too, and means another thing by it


@dataclass(frozen=True)
class ImageTensors:
    """Makes the tensors that a model takes of a batch's images; ``po.training.collate.Collator`` calls it.

    Attributes:
        processor: of transformers, the model's own.
        taken: arguments of the model's forward.
    """

    processor: Any
    taken: frozenset[str]

    @classmethod
    def of(cls, processor: Any, model: Any) -> "ImageTensors":
        """What a model needs.

        Args:
            processor: of transformers.
            model: that it belongs to, with adapters or without.

        Raises:
            InputFault: the model takes no images, or also attends backwards over the prompt, which the
                engine does not know of (PaliGemma).
        """
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        taken = frozenset(inspect.signature(type(model).forward).parameters)
        if "pixel_values" not in taken:
            raise InputFault(
                f"{type(model).__name__} takes no images, and the rows have some; leave them out"
            )
        if _MARKED_GEMMA3 in taken and not model.config.model_type.startswith("gemma3"):
            raise InputFault(
                f"{type(model).__name__} needs {_MARKED_GEMMA3} that say where a prompt ends, which is not "
                "offered; models like Llava, Qwen-VL and Gemma 3 can be trained"
            )
        return cls(processor, taken)

    def __call__(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """``pixel_values`` and what else belongs to them, all images of a batch one after the other.

        Args:
            images: paths, pictures of PIL, or columns of ``datasets`` with the bytes of a file.

        Raises:
            InputFault: a picture cannot be read.
        """
        if not images:
            return {}
        pixels = getattr(self.processor, "image_processor", self.processor)
        found = pixels(images=[picture(image) for image in images], return_tensors="pt")
        return {name: torch.as_tensor(value) for name, value in found.items() if name in self.taken}


class ImageTokenizer:
    """What tokenizes a prompt with its images: a tokenizer for ``po.data.tokenize``.

    The processor puts as many image tokens for a picture as the model will have features of it. A prompt
    that says nothing of where its images belong gets them in front.

    Args:
        processor: of transformers.
        images: of the prompt, as ``ImageTensors`` takes them, in the order in which it speaks of them.
    """

    def __init__(self, processor: Any, images: Sequence[Any]) -> None:
        self.processor = processor
        self.pictures = [picture(image) for image in images]
        self.chat_template = processor.chat_template or processor.tokenizer.chat_template
        self.bos_token_id = processor.tokenizer.bos_token_id
        self.eos_token_id = processor.tokenizer.eos_token_id
        self.eos_token = processor.tokenizer.eos_token
        # Gemma 3 marks the place with one token and fills it with another.
        self._place: str = getattr(processor, "boi_token", None) or processor.image_token

    def __call__(self, text: str, *, add_special_tokens: bool = True, **how: Any) -> dict[str, list[int]]:
        """Ids of a plain text; of one without special tokens, which is a part of a text, without images."""
        if not add_special_tokens:
            return dict(self.processor.tokenizer(text, add_special_tokens=False, **how))
        if self._place not in text:
            text = f"{self._place * len(self.pictures)}\n{text}" if self.pictures else text
        return {"input_ids": self._ids(text)}

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **how: Any) -> list[int]:
        """Ids of a conversation."""
        parts = [_parts(message) for message in messages]
        if not any(part["type"] == "image" for each in parts for part in each):
            first = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
            parts[first] = [*({"type": "image"} for _ in self.pictures), *parts[first]]
        filled = [{**message, "content": each} for message, each in zip(messages, parts, strict=True)]
        text = self.processor.apply_chat_template(
            filled,
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=how.get("add_generation_prompt", False),
        )
        return self._ids(text, add_special_tokens=False)

    def _ids(self, text: str, **how: Any) -> list[int]:
        places = text.count(self._place)
        if places != len(self.pictures):
            raise InputFault(
                f"the prompt has {places} places for images ('{self._place}') and {len(self.pictures)} "
                "images; give one for each, or none at all to have them in front"
            )
        found = self.processor(text=[text], images=self.pictures or None, **how)["input_ids"][0]
        return [int(token) for token in found]


def prompt_with_images(processor: Any, prompt: Text, images: Sequence[Any]) -> list[int]:
    """Ids of a prompt and its images, by the rules of ``po.data.tokenize.prompt_ids``.

    Args:
        processor: of transformers.
        prompt: a text or a conversation.
        images: as ``ImageTensors`` takes them.

    Raises:
        InputFault: other numbers of images and of places for them; a picture that cannot be read.
    """
    return prompt_ids(ImageTokenizer(processor, images), prompt)


def token_marks(model: Any, input_ids: Tensor) -> dict[str, Tensor]:
    """Which tokens stand for images, for models that are told: (rows, length), 1 for an image.

    Args:
        model: of transformers.
        input_ids: (rows, length).
    """
    taken = inspect.signature(type(model).forward).parameters
    name = next((name for name in (_MARKED, _MARKED_GEMMA3) if name in taken), None)
    return {} if name is None else {name: (input_ids == model.config.image_token_id).int()}


def picture(image: Any) -> Any:
    """A picture of PIL in RGB.

    Args:
        image: a path, a picture of PIL, or a mapping with ``bytes`` or ``path``.

    Raises:
        InputFault: it is none of these, or cannot be read.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Mapping):
        image = io.BytesIO(image["bytes"]) if image.get("bytes") else image.get("path")
    if not isinstance(image, str | Path | io.BytesIO):
        raise InputFault(
            f"an image is a {type(image).__name__}; give a path, a picture of PIL, or the bytes of a file"
        )
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise InputFault(f"the image {image} cannot be read: {error}") from None


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of a message, part by part."""
    content = message["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [dict(part) for part in content]
