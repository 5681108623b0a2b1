"""The data set of a library user -> rows that a method can train on."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.utils import logging

from po.collate import ROW_COLUMNS
from po.data import EncodeSettings, encode_rows
from po.data.forms import Form
from po.data.screen import Screen, told
from po.faults import InputFault
from po.method import DataForm, Method
from po.methods import METHODS
from po.preference_config import PreferenceConfig
from po.rows import Row
from po.total_length import total_length, within_total

logger = logging.get_logger(__name__)

_TAKEN: Mapping[DataForm, tuple[Form, ...]] = {
    "paired": ("paired",),
    "unpaired": ("unpaired", "paired"),
    "ranked": ("ranked",),
    "supervised": ("supervised", "paired"),
}
_WANTED = {
    "paired": "pairs (prompt, chosen, rejected)",
    "unpaired": "labelled completions (prompt, completion, label) or pairs",
    "ranked": "rankings (prompt, completions, scores)",
    "supervised": "completions (prompt, completion) or pairs",
}
_ON_THE_HUB = re.compile(r"hf://datasets/(?P<name>[^@]+)@")


class PreparedRows(list[Row]):
    """Rows of token ids with all that the method needs of them.

    Attributes:
        source: name of the data set; empty where none is known.
    """

    def __init__(self, rows: Iterable[Row], source: str = "") -> None:
        super().__init__(rows)
        self.source = source


def prepare_rows(
    dataset: Any, what: str, args: PreferenceConfig, tokenizer: Any, *, encoder_decoder: bool
) -> PreparedRows:
    """The rows of a data set as token ids, screened as the settings say.

    Args:
        dataset: a ``datasets.Dataset`` or a list; rows of texts, as ``po.data.forms`` has them, or of ids:
            ``prompt_ids`` with ``chosen_ids`` and ``rejected_ids``, ``completion_ids`` (and ``desirable``) or
            ``candidates_ids``.
        what: how messages call it.
        args: limits and choices, and the method that shall learn.
        tokenizer: of transformers, or a processor that has one; None does for rows of ids.
        encoder_decoder: whether the model is one.

    Raises:
        InputFault: rows that cannot be encoded, or from which the method cannot learn.
    """
    if not hasattr(dataset, "__len__"):
        raise InputFault(f"{what} is a stream without a length; take rows first: list(dataset.take(1000))")
    if len(dataset) == 0:
        raise InputFault(f"{what} has no rows")
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    settings = args.encode_settings(encoder_decoder=encoder_decoder)
    has_ids = "prompt_ids" in dataset[0]
    if not has_ids and tokenizer is None:
        raise InputFault(f"{what} has texts, so a tokenizer is needed; give processing_class")
    screen = Screen(settings, **_ends(tokenizer, encoder_decoder))
    try:
        if has_ids:
            rows = _of_ids(dataset, screen)
            counts = screen.counts
        else:
            rows, counts = encode_rows(dataset, tokenizer, settings)
        rows = _within_total(rows, args, settings, counts, _ends(tokenizer, encoder_decoder))
        _check(rows, args.resolved_method, args.resolved_method.needed(args.resolved_params))
    except InputFault as fault:
        raise InputFault(f"{what}: {fault}") from None
    changed = any(value for name, value in counts.items() if name != "rows")
    (logger.warning if changed else logger.info)(f"{what}: {told(counts | {'rows': len(rows)})}")
    return PreparedRows(rows, source_of(dataset))


def _ends(tokenizer: Any, encoder_decoder: bool) -> dict[str, int | None]:
    """Tokens that stay at the ends of a prompt that is cut."""
    return {
        "bos_token_id": getattr(tokenizer, "bos_token_id", None),
        "end_token_id": getattr(tokenizer, "eos_token_id", None) if encoder_decoder else None,
    }


def _of_ids(dataset: Iterable[Mapping[str, Any]], screen: Screen) -> list[Row]:
    """Rows of ids that pass the screen; what a data set fills up with None is left out."""
    found = []
    for index, row in enumerate(dataset):
        known = {key: value for key, value in row.items() if value is not None}
        if _form(known) is None or not all(_filled(known, key) for key in known if key.endswith("_ids")):
            columns = ", ".join(sorted(row))
            raise InputFault(f"row {index} of ids ({columns}) has no completion, or one without tokens")
        if (admitted := screen.admit(known, f"row {index}")) is not None:
            found.append(admitted)
    return found


def _filled(row: Row, key: str) -> bool:
    return bool(row[key]) and (key != "candidates_ids" or all(row[key]))


def _form(row: Row) -> Form | None:
    """What a row of ids is."""
    if {"chosen_ids", "rejected_ids"} <= set(row):
        return "paired"
    if "candidates_ids" in row:
        return "ranked"
    if "completion_ids" not in row:
        return None
    return "unpaired" if "desirable" in row else "supervised"


def _within_total(
    rows: list[Row], args: PreferenceConfig, settings: EncodeSettings, counts: dict[str, int], ends: Any
) -> list[Row]:
    """The rows within ``max_length``; what is done with others is counted."""
    if args.max_length is None:
        return rows
    kept, again = [], Screen(settings, **ends)
    for index, row in enumerate(rows):
        total = total_length(row)
        if total <= args.max_length:
            kept.append(row)
        elif settings.over_long == "error":
            raise InputFault(
                f"row {index} has {total} tokens, and max_length is {args.max_length}; raise it, or choose "
                "over_long: drop or truncate"
            )
        elif settings.over_long == "drop":
            counts["dropped_over_max_length"] = counts.get("dropped_over_max_length", 0) + 1
        else:
            cut = again.admit(
                within_total(row, args.max_length, settings.truncation, **ends), f"row {index}, when cut"
            )
            kept += [cut] if cut is not None else []
    for name in ("dropped_equal", "dropped_duplicate", "truncated_prompt", "truncated_completion"):
        counts[name] += again.counts[name]
    return kept


def _check(rows: list[Row], method: Method, needed: tuple[str, ...]) -> None:
    """Refuses rows from which a method cannot learn."""
    if not rows:
        raise InputFault("no row is left; loosen the limits")
    for index, row in enumerate(rows):
        form = _form(row)
        if form not in _TAKEN[method.data]:
            raise InputFault(
                f"{method.name} learns from {_WANTED[method.data]}; {_remedy(index, form, method)}"
            )
        for name in ROW_COLUMNS:
            if name in needed and name not in row:
                raise InputFault(f"{method.name} needs {name}; row {index} has none")


def _remedy(index: int, form: Form | None, method: Method) -> str:
    if form == "ranked" and method.data == "paired":
        return "these are rankings; make pairs of them with po.data.pairs_from_ranked"
    others = [name for name, entry in METHODS.items() if form in _TAKEN[entry.data]]
    return f"row {index} is {form}, from which these learn: {', '.join(others)}"


def source_of(dataset: Any) -> str:
    """Name of a data set: its id on the hub, or what ``datasets`` calls it; empty for a list."""
    info = getattr(dataset, "info", None)
    addresses = getattr(info, "download_checksums", None) or {}
    for address in itertools.islice(addresses, 1):
        if match := _ON_THE_HUB.match(address):
            return match["name"]
    return str(getattr(info, "dataset_name", None) or "")
