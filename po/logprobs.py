"""Log-probabilities of preference pairs under trained cells and under what their training started from.

    python -m po.logprobs runs/demo/cells/tiny.numbers.dpo.s1--0123456789 --pairs pairs.jsonl
    python -m po.logprobs runs/demo --pairs pairs.jsonl --split test

RUN is a cell's folder, or an experiment's: then all its trained cells. A line of FILE has chosen, rejected
and prompt, or source, with which the cell's own prompt template is filled; other columns are kept.
The reference is the cell's parent, or the model that it was trained from; one from scratch has none.

Reads   RUN/cell.json, RUN/model.json, the corpus' unit.json and tokenizer, FILE
Writes  RUN/preferences/<name>--<hash>/logps.jsonl and, last, preferences.json; what is done is kept
        cache/logps/ of the experiment: values by content, so that an interrupted run goes on
Exit    0 done or already done, 65 bad data or settings
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from po.data.pair_file import EncodedPairs, encode_pairs, read_pairs
from po.data.screen import counts_in_words
from po.data.settings import CHOICES, EncodeSettings
from po.faults import InputFault, told
from po.files import write_json, write_whole
from po.models.loading import POINTER, load_tokenizer, model_location
from po.models.published import Weights, reference_of
from po.settings import TrainSettings, read_settings

_FROM_RENDERING = (
    "max_prompt_length", "max_completion_length", "truncation", "over_long", "equal_pairs", "duplicates",
    "empty",
)  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m po.logprobs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--pairs", required=True, type=Path, metavar="FILE", help="JSONL")
    parser.add_argument("--name", help="of the results (default: the file's)")
    parser.add_argument("--split", metavar="NAME", help="only pairs whose column 'split' says so")
    reference = parser.add_mutually_exclusive_group()
    reference.add_argument("--reference", type=Path, metavar="CELL", help="instead of the parent")
    reference.add_argument("--no-reference", action="store_true", help="of the cell alone")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: that of the cell's training")
    limits = parser.add_argument_group("limits and choices, instead of the cell's task's")
    limits.add_argument("--max-prompt-length", type=int, metavar="TOKENS")
    limits.add_argument("--max-completion-length", type=int, metavar="TOKENS")
    limits.add_argument("--over-long", choices=CHOICES["over_long"])
    limits.add_argument("--empty", choices=CHOICES["empty"])
    return parser


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of each cell.

    Attributes:
        pairs: the file.
        name: of the results.
        split: only its pairs, if given.
        reference: a cell; None for what training started from.
        without_reference: whether there shall be none at all.
        precision: ``fp32`` or ``bf16``; None for the cell's own.
        encoding: settings of ``EncodeSettings`` that come before the task's.
    """

    pairs: Path
    name: str
    split: str | None = None
    reference: Path | None = None
    without_reference: bool = False
    precision: str | None = None
    encoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def compute(folder: Path, request: Request) -> Path:
    """Computes what is missing of one cell; returns ``logps.jsonl``.

    Raises:
        InputFault: the cell is not trained, or a pair cannot be encoded.
    """
    from po.references.shared_logps import Scorer, pair_logps

    settings = read_settings(folder)
    location, revision = model_location(settings.folder)
    unit = _corpus_unit(settings.corpus)
    encoding = _encode_settings(settings, request, unit.get("rendering") or {}, location, revision)
    precision = request.precision or (settings.recipe.training.precision if settings.recipe else "fp32")
    sources = {"policy": Weights.of_cell(settings)}
    if not request.without_reference and (start := reference_of(settings, request.reference)):
        sources["reference"] = start
    facts = _facts(request, sources, unit, encoding, precision)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    target = settings.folder / "preferences" / f"{request.name}--{digest[:10]}"
    if _is_done(target, digest):
        return target / "logps.jsonl"
    rows = read_pairs(request.pairs, request.split)
    pairs = encode_pairs(rows, load_tokenizer(settings.corpus), encoding, unit.get("rendering"))
    sys.stderr.write(f"{folder}: {counts_in_words(pairs.counts)}\n")
    cache = settings.folder.parents[1] / "cache" / "logps"
    found = {
        role: pair_logps(
            Scorer(f"{folder}: {role}", source.key, source.spec["dtype"], source.load),
            pairs.ids,
            precision,
            cache,
        )
        for role, source in sources.items()
    }
    params = settings.recipe.params if settings.recipe else {}
    about = facts | {
        "hash": digest,
        "name": request.name,
        "pairs": str(request.pairs),
        "method": settings.recipe.method.name if settings.recipe else None,
        "beta": params.get("beta"),
    }
    return _publish(target, pairs, found, about)


def _facts(
    request: Request,
    sources: Mapping[str, Weights],
    unit: Mapping[str, Any],
    encoding: EncodeSettings,
    precision: str,
) -> dict[str, Any]:
    """All that decides the values; a hash of it names the folder."""
    return {
        "pairs_sha256": hashlib.sha256(_bytes(request.pairs)).hexdigest(),
        "split": request.split,
        "policy": sources["policy"].document(),
        "reference": sources["reference"].document() if "reference" in sources else None,
        "corpus": unit.get("hash"),
        "encoding": dataclasses.asdict(encoding),
        "precision": precision,
    }


def _corpus_unit(corpus: Path) -> dict[str, Any]:
    path = corpus / "unit.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _encode_settings(
    settings: TrainSettings,
    request: Request,
    rendering: Mapping[str, Any],
    location: str,
    revision: str | None,
) -> EncodeSettings:
    """The task's settings, those that are asked for in their place, and the model's positions as a limit."""
    from transformers import AutoConfig

    remote = {"revision": revision, "trust_remote_code": settings.model["trust_remote_code"]}
    config = AutoConfig.from_pretrained(location, **remote)
    given = {name: rendering[name] for name in _FROM_RENDERING if name in rendering}
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if config.is_encoder_decoder or not positions or positions < 2:
        positions = None  # its two parts have positions of their own
    return EncodeSettings(
        **{**given, **request.encoding},
        max_length=positions,
        encoder_decoder=bool(config.is_encoder_decoder),
        form="paired",
    )


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputFault(
            f"{path} is missing; --pairs takes a JSONL file with chosen, rejected and prompt or source"
        )
    return path.read_bytes()


def _is_done(target: Path, digest: str) -> bool:
    try:
        facts = json.loads((target / "preferences.json").read_text(encoding="utf-8"))
        content = hashlib.sha256((target / "logps.jsonl").read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False
    return bool(facts.get("hash") == digest and facts.get("logps_sha256") == content)


def _publish(target: Path, pairs: EncodedPairs, found: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Writes the rows and, last, the document that says that they are whole."""
    lines = []
    for index, (row, ids) in enumerate(zip(pairs.rows, pairs.ids, strict=True)):
        sides = ("chosen", "rejected")
        values = {
            f"{role}_{side}": float(found[role][index, k]) for role in found for k, side in enumerate(sides)
        }
        tokens = {f"{side}_tokens": len(ids[f"{side}_ids"]) for side in sides}
        flags = {name: True for name in ids if name.endswith("_truncated")}
        lines.append(json.dumps(row | values | tokens | flags, ensure_ascii=False) + "\n")
    content = "".join(lines).encode("utf-8")
    target.mkdir(parents=True, exist_ok=True)
    write_whole(target / "logps.jsonl", lambda file: file.write(content))
    sha256 = hashlib.sha256(content).hexdigest()
    facts = {"schema": 1, **about, "rows": len(lines), "counts": pairs.counts, "logps_sha256": sha256}
    write_json(target / "preferences.json", facts)
    return target / "logps.jsonl"


def _cells(runs: Sequence[Path]) -> list[Path]:
    """Cells by themselves, and all trained cells of experiments.

    Raises:
        InputFault: a folder is neither.
    """
    found: dict[Path, None] = {}
    for run in runs:
        inside = (
            [run]
            if (run / "cell.json").is_file()
            else sorted(p.parent for p in run.glob("cells/*/cell.json"))
        )
        if not inside:
            raise InputFault(f"{run}: neither a cell (cell.json) nor an experiment (cells/*/cell.json)")
        trained = [cell for cell in inside if cell == run or (cell / POINTER).is_file()]
        found |= dict.fromkeys(trained)
    return list(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    given = _parser().parse_args(argv)
    names = ("max_prompt_length", "max_completion_length", "over_long", "empty")
    request = Request(
        pairs=given.pairs,
        name=given.name or given.pairs.stem,
        split=given.split,
        reference=given.reference,
        without_reference=given.no_reference,
        precision=given.precision,
        encoding={name: getattr(given, name) for name in names if getattr(given, name) is not None},
    )

    def work() -> int:
        for folder in _cells(given.runs):
            sys.stdout.write(f"{compute(folder, request)}\n")
        return 0

    return told(work)


if __name__ == "__main__":
    sys.exit(main())
