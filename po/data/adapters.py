"""Data sets whose columns are not ours: what their rows hold, under our names.

An adapter is a function of one raw row. What it returns has the columns of :mod:`po.data.forms`, and beside
them ``source`` (the text that is translated or summarized), ``category`` (the direction, the community) and,
where rows differ in it, ``source_lang`` and ``target_lang``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from po.data.forms import Form, Row, with_prompt
from po.data.pairing import pairs_from_ranked, unpaired_from_pairs
from po.faults import InputFault
from po.methods.hyperparameters import nearest

__all__ = ["ADAPTERS", "Adapter", "adapter_named", "pairs_from_ranked", "unpaired_from_pairs"]

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_TASK = re.compile(
    r"Translate the following (?P<source>[\w ]+?) source text to (?P<target>[\w ]+?):\n"
    r"(?P=source): (?P<text>.*)\n(?P=target): ?$",
    re.DOTALL,
)


def mt_pref(row: Mapping[str, Any]) -> Row:
    """A row of ``sardinelab/MT-pref`` (Agrawal et al. 2024, arXiv:2410.07779): pairs of translations.

    Fields: ``chosen``, ``rejected``, and either ``prompt``, a user's turn in ChatML that names the languages
    and holds the source, or ``source`` and ``lp`` (``en-de``), from which the prompt is yet to be made; with
    ``chosen_score`` and ``rejected_score`` where the file has them. The marks of ChatML are taken off, so
    that the model's own chat template writes the turns.
    """
    found: Row = {side: _without_marks(_needed(row, side, "mt_pref")) for side in ("chosen", "rejected")}
    found |= {key: row[key] for key in ("chosen_score", "rejected_score") if row.get(key) is not None}
    if row.get("prompt") is None:
        pair = str(_needed(row, "lp", "mt_pref"))
        source_lang, _, target_lang = pair.partition("-")
        languages = {"source_lang": source_lang, "target_lang": target_lang}
        return found | {"source": _needed(row, "source", "mt_pref"), "category": pair} | languages
    prompt = row["prompt"]
    turns = [{"role": role, "content": text} for role, text in _TURN.findall(prompt)]
    found["prompt"] = turns if len(turns) > 1 else turns[0]["content"] if turns else prompt
    task = _TASK.search(turns[-1]["content"] if turns else prompt)
    if task:
        found |= {"source": task["text"], "category": f"{task['source']}-{task['target']}"}
    return found


def summarize_from_feedback(row: Mapping[str, Any]) -> Row:
    """A row of ``openai/summarize_from_feedback``, configuration ``comparisons``: pairs of summaries.

    Fields (Stiennon et al. 2020, arXiv:2009.01325): ``info`` with ``post``, ``title``, ``subreddit`` (or
    ``article`` and ``site`` for news), ``summaries``, two of them with ``text``, and ``choice``, the index of
    the better one. Several rows share ``info.id``, so it is no id here.
    """
    info, name = _needed(row, "info", "summarize_from_feedback"), "summarize_from_feedback"
    summaries, choice = _needed(row, "summaries", name), _needed(row, "choice", name)
    if len(summaries) != 2 or choice not in (0, 1):
        raise InputFault(
            f"{name}: {len(summaries)} summaries and choice {choice!r}; two, and 0 or 1, expected"
        )
    chosen, rejected = (str(summaries[index]["text"]).strip() for index in (choice, 1 - choice))
    return {**_post(info, name), "chosen": chosen, "rejected": rejected}


def tldr(row: Mapping[str, Any]) -> Row:
    """A post with its author's summary: ``post``, ``title``, ``subreddit``, ``summary`` (TL;DR).

    For fine-tuning and for tests beside ``summarize_from_feedback``: the prompt has the same words.
    """
    summary = str(_needed(row, "summary", "tldr")).strip()
    return {**_post(row, "tldr"), "completion": summary}


def wmt_mqm(row: Mapping[str, Any]) -> Row:
    """A segment with the outputs of many systems, rated by people (MQM): a ranking.

    Fields: ``source``, ``src_lang``, ``tgt_lang``, and ``outputs``, each with ``text`` and ``score`` (higher
    is better).
    """
    outputs = _needed(row, "outputs", "wmt_mqm")
    scored = [output for output in outputs if output.get("score") is not None]
    languages = {"source_lang": row.get("src_lang"), "target_lang": row.get("tgt_lang")}
    found = {"source": _needed(row, "source", "wmt_mqm"), **languages}
    if row.get("id") is not None:
        found["id"] = row["id"]
    return found | {
        "completions": [output["text"] for output in scored],
        "scores": [output["score"] for output in scored],
    }


def implicit_prompt(row: Mapping[str, Any]) -> Row:
    """``chosen`` and ``rejected`` that both begin with the prompt: it is taken out of them.

    An adapter of its own, because of plain texts it is a guess: see :func:`po.data.forms.with_prompt`.
    """
    others = {key: value for key, value in row.items() if key not in ("prompt", "chosen", "rejected")}
    whole = {side: _needed(row, side, "implicit_prompt") for side in ("chosen", "rejected")}
    return others | with_prompt(whole)


def _post(info: Mapping[str, Any], name: str) -> Row:
    """Prompt, source and category of a Reddit post or a news article."""
    if info.get("post") is None:
        article = _needed(info, "article", name)
        return {"source": article, "prompt": f"Article:\n{article}\n\nTL;DR:", "category": info.get("site")}
    post, subreddit = info["post"], info.get("subreddit")
    prompt = f"SUBREDDIT: r/{subreddit}\n\nTITLE: {info.get('title')}\n\nPOST: {post}\n\nTL;DR:"
    return {"source": post, "prompt": prompt, "category": subreddit}


def _needed(row: Mapping[str, Any], key: str, name: str) -> Any:
    if row.get(key) is None:
        columns = ", ".join(sorted(row)) or "none"
        raise InputFault(f"the adapter {name} needs '{key}'{nearest(key, row)} The columns are: {columns}")
    return row[key]


def _without_marks(text: str) -> str:
    return text.removesuffix("<|im_end|>")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A data set's schema.

    Attributes:
        convert: raw row -> our columns; raises InputFault where a field is missing.
        form: what the rows are then.
    """

    convert: Callable[[Mapping[str, Any]], Row]
    form: Form


ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        "mt_pref": Adapter(mt_pref, "paired"),
        "summarize_from_feedback": Adapter(summarize_from_feedback, "paired"),
        "tldr": Adapter(tldr, "supervised"),
        "wmt_mqm": Adapter(wmt_mqm, "ranked"),
        "implicit_prompt": Adapter(implicit_prompt, "paired"),
    }
)
"""Every adapter, by the name that a manifest gives it."""


def adapter_named(name: str) -> Adapter:
    """The adapter of a name.

    Raises:
        InputFault: there is none; names the nearest.
    """
    if name not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise InputFault(f"there is no adapter '{name}'{nearest(name, ADAPTERS)} Known: {known}.")
    return ADAPTERS[name]
