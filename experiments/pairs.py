"""Make preference pairs on policy: sample candidates from a model, score them, choose.

    python -m experiments.pairs runs/NAME/pairs/FOLDER

Reads   FOLDER/unit.json, the training prompts and the parent's model that it names
Writes  FOLDER/candidates/ (all samples, kept by batch), pairs.jsonl; last pairs.json (counts, provenance)
Exit    0 done or already done, 65 nothing to choose from, or no unit.json
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.cells import read_cell
from eval.generation.backends import open_backend
from eval.generation.decoding import Decoding
from eval.generation.shards import Shards, generate_rows
from eval.metrics import Example, Metric, SegmentScore, choose_metrics
from eval.records import Generation, Row, read_generations, read_rows
from experiments.atomic import read_json, write_json, write_text
from experiments.pair_rows import Candidate, PairRows
from experiments.prepare import read_jsonl
from experiments.tokenizing import is_encoder_decoder, load_saved
from experiments.unit_command import run_on_folder

_BACKEND = "transformers"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    return run_on_folder(argv, prog="python -m experiments.pairs", text=__doc__ or "", work=_make_missing)


def _make_missing(folder: Path, unit: dict[str, Any]) -> None:
    if not (folder / "pairs.json").is_file():
        make_pairs(folder, unit)


def make_pairs(folder: Path, unit: dict[str, Any]) -> None:
    """Samples, scores, chooses and writes."""
    root, recipe = folder.parents[1], unit["recipe"]
    rows = read_rows(root / unit["corpus"] / "train.jsonl")[: recipe["limit"]]
    generations = sample(folder / "candidates", unit, rows, read_cell(root / unit["parent"]))
    (metric,) = choose_metrics([recipe["scorer"]], unit.get("metric_definitions"))
    sets, skipped = candidate_sets(rows, generations, recipe, unit["target_lang"], metric)
    make = pair_rows(root / unit["corpus"], recipe)
    pairs = []
    for row, candidates in zip(rows, sets, strict=True):
        picked = choose(candidates, recipe, f"{recipe['seed']}:{row.id}")
        if isinstance(picked, str):
            skipped[picked] += 1
        else:
            pairs.append(make.row(row, *picked, candidates))
    if not pairs:
        remedy = "lower pairs.min_gap, raise samples or temperature, or train the parent longer"
        raise ValueError(f"none of {len(rows)} prompts gave a pair ({dict(skipped)}); {remedy}")
    write_text(folder / "pairs.jsonl", "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    example = Example("0", "a", ("a",), "a")
    facts = {
        "schema": 1,
        "hash": unit["hash"],
        "scorer": {
            "metric": metric.name,
            "signature": metric.signatures([example], unit["target_lang"]).segment,
        },
        "prompts": len(rows),
        "pairs": len(pairs),
        "skipped": dict(skipped),
        "mean_chosen_score": sum(pair["chosen_score"] for pair in pairs) / len(pairs),
        "mean_rejected_score": sum(pair["rejected_score"] for pair in pairs) / len(pairs),
    }
    write_json(folder / "pairs.json", facts)


def pair_rows(corpus: Path, recipe: dict[str, Any]) -> PairRows:
    """What makes the rows of pairs over a corpus."""
    prepared = read_jsonl(corpus / "train.jsonl")
    return PairRows(
        tokenizer=load_saved(corpus / "tokenizer"),
        prompts={row["id"]: row["messages"] for row in prepared if "messages" in row},
        ranked=bool(recipe.get("ranked")),
        encoder_decoder=is_encoder_decoder(read_json(corpus / "unit.json")["model"]),
    )


def sample(folder: Path, unit: dict[str, Any], rows: Sequence[Row], parent: Any) -> list[Generation]:
    """``samples`` outputs for each prompt, in the rows' order; batches on the disk are not drawn again."""
    recipe = unit["recipe"]
    settings = Decoding(
        do_sample=True,
        temperature=recipe["temperature"],
        top_p=recipe["top_p"],
        top_k=recipe["top_k"],
        max_new_tokens=recipe["max_new_tokens"],
        batch_size=recipe["batch_size"],
        n=recipe["samples"],
        seed=recipe["seed"],
    )
    shards = Shards(
        folder, name="candidates", digest=unit["hash"], backend=_BACKEND, settings=settings, rows=rows
    )
    generate_rows(rows, shards, settings, lambda: open_backend(_BACKEND, parent.model_source()))
    by_id = {generation.id: generation for generation in read_generations(shards.path)}
    return [by_id[row.id] for row in rows]


def candidate_sets(
    rows: Sequence[Row],
    generations: Sequence[Generation],
    recipe: dict[str, Any],
    target_lang: str | None,
    metric: Metric,
) -> tuple[list[list[Candidate]], Counter[str]]:
    """Candidates of every prompt, the best first; and what was left out.

    Truncated samples (they do not end), empty ones and repetitions of a text are left out.

    Raises:
        ValueError: a prompt has no reference where the metric or the recipe needs one, or cannot be scored.
    """
    left_out = Counter({"samples_truncated": 0, "samples_empty": 0, "samples_repeated": 0})
    sign = 1.0 if metric.higher_is_better else -1.0
    with_reference = recipe["include_reference"] or recipe["choose"] == "reference-worst"
    flat: list[tuple[int, str, str]] = []
    for index, (row, generation) in enumerate(zip(rows, generations, strict=True)):
        texts = _distinct_texts(generation, left_out)
        if not any(row.references) and (with_reference or "refs" in metric.needs):
            found = f"row '{row.id}' of the training prompts has no reference"
            user = (
                "the recipe makes it a candidate" if with_reference else f"{metric.name} scores against one"
            )
            raise ValueError(f"{found}, and {user}")
        if with_reference:
            texts[next(text for text in row.references if text)] = "reference"
        flat += [(index, text, origin) for text, origin in texts.items()]
    examples = [
        Example(rows[i].id, text, rows[i].references, rows[i].source, rows[i].turns) for i, text, _ in flat
    ]
    scored = _scored(metric, examples, target_lang)
    sets: list[list[Candidate]] = [[] for _ in rows]
    for (index, text, origin), segment in zip(flat, scored, strict=True):
        sets[index].append(Candidate(text, sign * segment.score, origin))
    return [sorted(found, key=lambda c: -c.score) for found in sets], left_out


def _scored(metric: Metric, examples: Sequence[Example], target_lang: str | None) -> list[SegmentScore]:
    """A finite score for each candidate."""
    if not examples:
        return []
    metric.check(examples)
    scored = metric.score_segments(examples, target_lang)
    metric.check_finite(zip(examples, scored, strict=True))
    return scored


def _distinct_texts(generation: Generation, left_out: Counter[str]) -> dict[str, str]:
    """Text -> origin of the samples that can be candidates; the others are counted."""
    texts: dict[str, str] = {}
    for output in generation.outputs:
        text = output.text.strip()
        if output.finish_reason == "length":
            left_out["samples_truncated"] += 1
        elif not text:
            left_out["samples_empty"] += 1
        elif text in texts:
            left_out["samples_repeated"] += 1
        else:
            texts[text] = "sample"
    return texts


def choose(
    candidates: Sequence[Candidate], recipe: dict[str, Any], seed: str
) -> tuple[Candidate, Candidate] | str:
    """(chosen, rejected) out of ranked candidates, or the reason why there is no pair."""
    if recipe["choose"] == "reference-worst":
        best = next((c for c in candidates if c.origin == "reference"), None)
        others = [c for c in candidates if c.origin != "reference"]
    else:
        best, others = (candidates[0], list(candidates[1:])) if candidates else (None, [])
    if best is None or not others:
        return "prompts_with_one_candidate"
    worst = random.Random(seed).choice(others) if recipe["choose"] == "best-random" else others[-1]
    gap = best.score - worst.score
    if gap <= 0 or gap < recipe["min_gap"]:
        return "prompts_below_min_gap"
    if recipe["max_gap"] is not None and gap > recipe["max_gap"]:
        return "prompts_above_max_gap"
    return best, worst


if __name__ == "__main__":
    sys.exit(main())
