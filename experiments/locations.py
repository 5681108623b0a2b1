"""What a text of the manifest points at: a file or an id on a hub, a template or the file of one."""

import os
import re
from pathlib import Path

# what git refuses in a name, and < >, which mark what is to be filled in
_NO_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\<>]|\.\.|@\{")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
DATA_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def expand(text: str) -> str:
    """The text with ``${NAME}`` replaced from the environment.

    Raises:
        KeyError: a variable is not set; names it.
    """
    return _VARIABLE.sub(lambda found: os.environ[found.group(1)], text)


def unset_variable(text: str) -> str | None:
    """The first ``${NAME}`` in the text that the environment lacks, or None."""
    return next((name for name in _VARIABLE.findall(text) if name not in os.environ), None)


def is_local(dataset: str) -> bool:
    """Whether a data set's name is a file of this machine (by its ending) and not an id on a hub."""
    return dataset.endswith(DATA_ENDINGS)


def revision_fault(revision: str) -> str | None:
    """Why a text cannot be a revision on a hub; None if it may be one."""
    found = _NO_REVISION.search(revision)
    if revision and found is None:
        return None
    why = f"has {found[0]!r}, which no revision has" if found else "is empty"
    return f"{revision!r} {why}; give a commit, a branch or a tag"


def looks_like_path(text: str) -> bool:
    """Whether a name can only be meant as a path: it begins like one, or it is there."""
    return text.startswith(("/", "./", "../", "~")) or Path(text).exists()


def is_template(text: str) -> bool:
    """Whether a text is a Jinja template itself and not the path of one."""
    return "{{" in text or "{%" in text


def template_source(text: str) -> str:
    """The template: the text itself, or the content of the file that it names."""
    return text if is_template(text) else Path(expand(text)).read_text(encoding="utf-8")
