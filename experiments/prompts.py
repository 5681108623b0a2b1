"""Prompt templates of the two tasks, and the one place that fills them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

# Every template ends in a line end, so a completion starts a line of its own and its first token has no leading blank.
_DEFAULTS = {
    "translation": "Translate the following text from {{ source_language }} into {{ target_language }}.\n"
    "{{ source_language }}: {{ source }}\n{{ target_language }}:\n",
    "summarization": "Summarize the following text.\n\n{{ source }}\n\nSummary:\n",
}
_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish", "fr": "French",
    "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
    "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip


def template_text(prompt: str | None, task_type: str) -> str:
    """The template itself: the task's default, the content of a file, or the text given in the manifest."""
    if prompt is None:
        return _DEFAULTS[task_type]
    return prompt if "{{" in prompt else Path(prompt).read_text(encoding="utf-8")


def render(template: str, row: Mapping[str, Any], source_lang: str, target_lang: str | None) -> str:
    """The prompt of one row.

    Raises:
        ValueError: the template is not jinja, or names a column that the row has not.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    languages = {
        "source_lang": source_lang,
        "target_lang": target_lang,
        "source_language": _LANGUAGES.get(source_lang, source_lang),
        "target_language": _LANGUAGES.get(target_lang or "", target_lang or ""),
    }
    try:
        return environment.from_string(template).render({**languages, **row})
    except jinja2.TemplateError as error:
        raise ValueError(f"the prompt template cannot be filled: {error}; columns of this row: {', '.join(sorted(row))}") from None
