"""One form of rows out of another: labelled completions out of pairs, pairs out of rankings."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, Literal

from po.data.forms import Row, Text, text_row
from po.faults import InputFault
from po.methods.hyperparameters import nearest

Pairing = Literal["best-worst", "adjacent", "all"]
PAIRINGS: tuple[Pairing, ...] = ("best-worst", "adjacent", "all")

_SIDES = {"chosen": True, "rejected": False}


def unpaired_from_pairs(row: Mapping[str, Any]) -> list[Row]:
    """The two labelled completions of a pair: the chosen one desirable, the rejected one not.

    Args:
        row: texts (``chosen``, ``rejected``) or ids (``chosen_ids``, ``rejected_ids``).

    Returns:
        Two rows: texts with ``completion`` and ``label``, or ids with ``completion_ids`` and ``desirable``. A
        value of one side (its flag, its reference's log-probability) goes with it under the name without
        the side; scores do not, because a label is what is learned from. An ``id`` gets the side behind it.

    Raises:
        InputFault: the row is no pair.
    """
    ids = "chosen_ids" in row
    needed = ("chosen_ids", "rejected_ids") if ids else ("chosen", "rejected")
    if any(row.get(name) is None for name in needed):
        raise InputFault(f"a pair has {' and '.join(needed)}; this row has {', '.join(sorted(row))}")
    shared = {key: value for key, value in row.items() if not _side_of(key) and key != "win_probability"}
    rows = []
    for side, label in _SIDES.items():
        found = shared | {"desirable" if ids else "label": label}
        for key, value in row.items():
            if _side_of(key) == side and not key.endswith("_score"):
                found[_without_side(key, side)] = value
        if "id" in row:
            found["id"] = f"{row['id']}-{side}"
        rows.append(found)
    return rows


def _side_of(key: str) -> str | None:
    return next((side for side in _SIDES if side in key.split("_")), None)


def _without_side(key: str, side: str) -> str:
    parts = ["completion" if part == side else part for part in key.split("_")]
    return "_".join(parts).replace("reference_completion", "reference")


def pairs_from_ranked(row: Mapping[str, Any], how: Pairing = "best-worst", min_gap: float = 0.0) -> list[Row]:
    """Pairs of a ranking; candidates of the same score are never paired.

    Args:
        row: a ranked row of texts; see :mod:`po.data.forms`.
        how: ``best-worst``: the two ends; ``adjacent``: neighbours in the ranking; ``all``: every two.
        min_gap: smallest difference of the two scores, in the scores' unit; needs scores.

    Returns:
        Rows with ``prompt``, ``chosen``, ``rejected`` and, if there are scores, ``chosen_score`` and
        ``rejected_score``; the best pairs first. None where nothing is far enough apart. Other columns are
        repeated; an ``id`` gets the number of the pair behind it, where there are several.

    Raises:
        InputFault: no such pairing, no ranking, or a gap without scores.
    """
    ranked = text_row(row, "ranked")
    pairs = ranked_pairs(ranked["candidates"], ranked.get("candidates_scores"), how, min_gap)
    others = {k: v for k, v in row.items() if k not in ("completions", "candidates", "scores")}
    return numbered([{**others, "prompt": ranked["prompt"], **pair} for pair in pairs])


def ranked_pairs(
    candidates: Sequence[Text], scores: Sequence[float] | None, how: str, min_gap: float = 0.0
) -> list[Row]:
    """``chosen`` and ``rejected``, with their scores, out of candidates in order; see `pairs_from_ranked`."""
    if how not in PAIRINGS:
        raise InputFault(f"pairing is '{how}'{nearest(how, PAIRINGS)} It is one of: {', '.join(PAIRINGS)}.")
    if scores is None and min_gap > 0:
        raise InputFault("min_gap compares scores, and this ranking has none; give the column scores")
    pairs: list[Row] = []
    for better, worse in _chosen_indices(len(candidates), how):
        pair: Row = {"chosen": candidates[better], "rejected": candidates[worse]}
        if scores is not None:
            gap = scores[better] - scores[worse]
            if gap <= 0 or gap < min_gap:
                continue
            pair |= {"chosen_score": scores[better], "rejected_score": scores[worse]}
        pairs.append(pair)
    return pairs


def numbered(rows: list[Row]) -> list[Row]:
    """Rows made of one row, told apart by the number behind their common ``id``, where there are several."""
    if len(rows) < 2 or "id" not in rows[0]:
        return rows
    return [row | {"id": f"{row['id']}-{number}"} for number, row in enumerate(rows)]


def _chosen_indices(count: int, how: str) -> Iterator[tuple[int, int]]:
    if how == "best-worst":
        yield 0, count - 1
    else:
        yield from pairwise(range(count)) if how == "adjacent" else combinations(range(count), 2)
