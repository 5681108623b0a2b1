"""What a row of a preference data set is: its form by its columns, and its parts under one set of names.

Columns are TRL's. A text is a string, or a conversation: a list of messages ``{"role", "content"}``.

    form        columns
    paired      prompt, chosen, rejected; or chosen and rejected alone, which begin with the prompt
    unpaired    prompt, completion, label (true: desirable)
    ranked      prompt, completions, scores; or prompt, candidates (best first, or with scores)
    supervised  prompt, completion; or messages, the last of which is the completion
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from po.faults import InputFault
from po.methods.hyperparameters import nearest

Row = dict[str, Any]
Message = Mapping[str, Any]
Text = str | list[Message]
Form = Literal["paired", "unpaired", "ranked", "supervised"]

FORMS: Mapping[Form, str] = {
    "paired": "prompt, chosen, rejected",
    "unpaired": "prompt, completion, label",
    "ranked": "prompt, completions, scores",
    "supervised": "prompt, completion",
}
PAIR_NUMBERS = ("chosen_score", "rejected_score", "win_probability")
_COLUMNS = ("prompt", "chosen", "rejected", "completion", "label", "completions", "candidates", "messages")


def form_of(row: Mapping[str, Any], place: str = "the row") -> Form:
    """The form of a row, by the columns that hold something.

    Args:
        row: column -> value; None counts as no column.
        place: how messages name the row.

    Raises:
        InputFault: its columns are those of no form; names them, the forms, and a column that is misspelled.
    """
    found = {name for name, value in row.items() if value is not None}
    if {"chosen", "rejected"} <= found:
        return "paired"
    if found & {"completions", "candidates"}:
        return "ranked"
    if "completion" in found:
        return "unpaired" if "label" in found else "supervised"
    if "messages" in found:
        return "supervised"
    columns = ", ".join(sorted(found)) or "none"
    forms = "; ".join(f"{form} ({names})" for form, names in FORMS.items())
    hints = (nearest(name, _COLUMNS) for name in sorted(found - set(_COLUMNS)))
    hint = next((hint for hint in hints if hint != "."), ".")
    raise InputFault(f"{place} has the columns {columns}{hint} A row is one of: {forms}; rename its columns")


def text_row(row: Mapping[str, Any], form: Form, place: str = "the row") -> Row:
    """A row's texts under one set of names, the prompt explicit.

    Args:
        row: a raw row.
        form: the result of :func:`form_of`.
        place: how messages name the row.

    Returns:
        ``prompt`` and, by form, ``chosen`` and ``rejected``; ``completion`` and ``desirable``; ``candidates``
        (best first) and, where they are known, ``candidates_scores``; ``completion``. A completion is a
        string or a list of one message.

    Raises:
        InputFault: a column is missing or of the wrong kind; or two completions do not share their prompt.
    """
    if form == "paired":
        found = with_prompt(row, place)
    elif form == "ranked":
        found = {"prompt": row.get("prompt"), **ranking(row, place)}
    elif row.get("completion") is None:
        messages = _conversation(row["messages"], "messages", place)
        found = {"prompt": messages[:-1], "completion": messages[-1:]}
    else:
        found = {"prompt": row.get("prompt"), "completion": row["completion"]}
    if form == "unpaired":
        found["desirable"] = desirable(row["label"], place)
    for name in ("prompt", "chosen", "rejected", "completion"):
        if name in found and (fault := text_fault(found[name])):
            raise InputFault(f"{place}: {name} {fault}")
    answers = [found[name] for name in ("chosen", "rejected", "completion") if name in found]
    for answer in [*answers, *found.get("candidates", ())]:
        check_answer(answer, place)
    return found


def with_prompt(row: Mapping[str, Any], place: str = "the row") -> Row:
    """A paired row's prompt, chosen and rejected completion; a prompt inside the two is taken out of them.

    Conversations share their prompt message by message. Of plain texts the prompt is the longest common
    beginning (TRL's ``extract_prompt``), but no word is cut in two, and neither completion is left empty.

    Raises:
        InputFault: the two begin differently; or one side has several messages that the other has not.
    """
    prompt, chosen, rejected = (row.get(name) for name in ("prompt", "chosen", "rejected"))
    if is_conversation(chosen) != is_conversation(rejected):
        raise InputFault(f"{place}: one of chosen and rejected is a conversation, the other is not")
    if is_conversation(chosen):
        chosen, rejected = list(chosen or ()), list(rejected or ())
        shared = _shared_messages(chosen, rejected)
        # a prompt beside whole conversations repeats what they hold
        before = list(prompt) if is_conversation(prompt) and prompt is not None else []
        before = [] if chosen[: min(shared, len(before))] == before else before
        whole = [*before, *chosen[:shared]] or ([{"role": "user", "content": prompt}] if prompt else [])
        if not whole:
            raise InputFault(f"{place}: chosen and rejected share no message; give their prompt as 'prompt'")
        return {"prompt": whole, "chosen": chosen[shared:], "rejected": rejected[shared:]}
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        cut = _shared_text(chosen, rejected)
        if not chosen[:cut].strip():
            raise InputFault(
                f"{place}: there is no prompt, and chosen and rejected share no beginning; add 'prompt'"
            )
        return {"prompt": chosen[:cut], "chosen": chosen[cut:], "rejected": rejected[cut:]}
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _shared_messages(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Number of leading messages that two conversations share; the last of each is never among them."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return shared


def _shared_text(chosen: str, rejected: str) -> int:
    """Length of the common beginning, moved back to a place where no word is cut and no rest is blank."""
    cut = 0
    while cut < min(len(chosen), len(rejected)) and chosen[cut] == rejected[cut]:
        cut += 1
    while cut and not _may_cut(chosen, rejected, cut):
        cut -= 1
    return cut - 1 if cut and chosen[cut - 1] == " " else cut


def _may_cut(chosen: str, rejected: str, cut: int) -> bool:
    if not chosen[cut:].strip() or not rejected[cut:].strip():
        return False
    return not (_in_word(chosen[cut - 1]) and (_in_word(chosen[cut]) or _in_word(rejected[cut])))


def _in_word(character: str) -> bool:
    return character.isalnum() or character in "'’"


def ranking(row: Mapping[str, Any], place: str = "the row") -> Row:
    """A ranked row's ``candidates``, the best first, and ``candidates_scores`` if there are any.

    Raises:
        InputFault: fewer than two completions, or scores that do not fit them.
    """
    listed = row.get("completions") if row.get("completions") is not None else row["candidates"]
    if not isinstance(listed, list | tuple) or len(listed) < 2:
        raise InputFault(f"{place}: a ranking is a list of at least two completions")
    scores = row.get("scores")
    if all(isinstance(one, Mapping) and "text" in one for one in listed):
        scores = [one["score"] for one in listed] if all("score" in one for one in listed) else scores
        listed = [one["text"] for one in listed]
    for text in listed:
        if fault := text_fault(text):
            raise InputFault(f"{place}: a completion {fault}")
    if scores is None:
        return {"candidates": list(listed)}
    if not isinstance(scores, list | tuple) or len(scores) != len(listed):
        raise InputFault(f"{place}: {len(listed)} completions need as many scores; scores is {scores!r}")
    if bad := [score for score in scores if not is_number(score)]:
        raise InputFault(f"{place}: the score {bad[0]!r} is no number")
    order = sorted(range(len(listed)), key=lambda index: -scores[index])
    return {
        "candidates": [listed[index] for index in order],
        "candidates_scores": [float(scores[index]) for index in order],
    }


def desirable(label: Any, place: str = "the row") -> bool:
    """A label as a truth value; 0, 1 and their names are taken too, as CSV files have them.

    Raises:
        InputFault: it is none of these.
    """
    found = label
    if isinstance(label, str):
        found = {"true": True, "false": False, "1": True, "0": False}.get(label.strip().lower())
    if found not in (0, 1):
        raise InputFault(f"{place}: label is {label!r}; it is true (desirable) or false")
    return bool(found)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages and no plain text."""
    listed = isinstance(value, list | tuple)
    return listed and all(isinstance(one, Mapping) and "role" in one for one in value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def content(text: Text) -> str:
    """What is said in a text: itself, or the content of a conversation's last message."""
    if isinstance(text, str):
        return text
    last = text[-1].get("content") if text else ""
    if isinstance(last, list):  # the parts of a message with images
        return "".join(str(part.get("text") or "") for part in last if isinstance(part, Mapping))
    return str(last or "")


def text_fault(value: Any) -> str | None:
    """What is wrong with a text or conversation, or None; blank texts are the matter of screening."""
    if value is None:
        return "is missing"
    if isinstance(value, str):
        return _surrogate_fault(value)
    if not is_conversation(value) or not value:
        kind = type(value).__name__
        return f"is a {kind}, not a text" + (" or a list of messages" if kind == "list" else "")
    for number, message in enumerate(value, start=1):
        if not isinstance(message.get("content"), str | list):
            return f"has a message without content (number {number}, role {message['role']!r})"
        if isinstance(message["content"], str) and (fault := _surrogate_fault(message["content"])):
            return fault
    return None


def _surrogate_fault(text: str) -> str | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    return None


def _conversation(value: Any, name: str, place: str) -> list[Message]:
    if not is_conversation(value) or len(value) < 2:
        raise InputFault(f"{place}: {name} is a list of at least two messages, a question and its answer")
    return list(value)


def check_answer(answer: Text, place: str) -> None:
    """Refuses a completion of several messages, or one that is not an assistant's.

    Raises:
        InputFault: it is; says what to do.
    """
    if isinstance(answer, str):
        return
    if len(answer) > 1:
        message = f"{place}: a completion of {len(answer)} messages; only the last answer is scored, so those"
        raise InputFault(f"{message} before it belong to the prompt, and both sides of a pair share them")
    if answer[0]["role"] != "assistant":
        raise InputFault(f"{place}: the completion's role is {answer[0]['role']!r}; it is 'assistant'")
