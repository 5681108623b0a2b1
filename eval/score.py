"""Score the generations of finished runs, or plain text files.

    python -m eval.score runs/demo
    python -m eval.score runs/demo/cells/tiny.numbers.sft.s1--0123456789 --metrics chrf,bleu
    python -m eval.score --hyp out.de --src test.en --ref test.de --target-lang de

RUN is a cell's folder, or an experiment's: then all its cells. In plain files one line is one segment.

Reads   RUN/cell.json, RUN/generate/*/generations.jsonl and the prepared rows
Writes  scores.json and segments.parquet beside the generations; scores that are there are kept
Exit    0 all scored, 1 some run failed, 2 wrong usage
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.cells import find_cell_folders, read_cell
from eval.faults import EvalError
from eval.inputs import examples_from_files
from eval.metrics import DEFAULT_METRICS, METRICS, Metric, choose_metrics, default_metrics
from eval.metrics.health import System
from eval.plain_files import as_table, score_files
from eval.scoring import Options, score_test
from eval.segment_cache import SegmentCache


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument(
        "--test", action="append", default=[], metavar="NAME", help="only this test set; may be repeated"
    )
    parser.add_argument("--metrics", metavar="A,B", help=f"instead of the run's: {', '.join(METRICS)}")
    parser.add_argument(
        "--recompute", action="store_true", help="score again what is there, without the cache"
    )
    parser.add_argument(
        "--nfc", action="store_true", help="bring all texts to Unicode NFC first; noted in the signature"
    )
    parser.add_argument(
        "--empty-references",
        choices=("error", "skip"),
        default="error",
        help="skip: leave out metrics that need references",
    )
    files = parser.add_argument_group("plain files")
    files.add_argument("--hyp", type=Path, metavar="FILE", help="outputs")
    files.add_argument("--src", type=Path, metavar="FILE", help="sources")
    files.add_argument(
        "--ref", type=Path, action="append", default=[], metavar="FILE", help="references; may be repeated"
    )
    files.add_argument("--source-lang", metavar="CODE")
    files.add_argument("--target-lang", metavar="CODE", help="decides how BLEU cuts words")
    files.add_argument("--task", choices=tuple(DEFAULT_METRICS), default="translation")
    files.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _check_usage(arguments: argparse.Namespace) -> None:
    if bool(arguments.runs) == bool(arguments.hyp):
        raise EvalError("give either runs or --hyp FILE; see --help")
    if arguments.hyp and not arguments.ref:
        raise EvalError("--hyp needs --ref FILE")
    given = [
        name for name in ("src", "ref", "source_lang", "target_lang", "json") if getattr(arguments, name)
    ]
    if arguments.runs and given:
        raise EvalError(f"--{given[0].replace('_', '-')} goes with --hyp; runs say it themselves")


def _options(arguments: argparse.Namespace) -> Options:
    skip = arguments.empty_references == "skip"
    return Options(recompute=arguments.recompute, nfc=arguments.nfc, skip_empty_references=skip)


def _score_plain(arguments: argparse.Namespace, metrics: Sequence[Metric]) -> int:
    languages = {"source_lang": arguments.source_lang, "target_lang": arguments.target_lang}
    try:
        examples = examples_from_files(arguments.hyp, arguments.ref, arguments.src)
        system = System(examples, arguments.task, **languages)
        chosen = metrics or choose_metrics(default_metrics(arguments.task, arguments.target_lang))
        result = score_files(system, chosen, _options(arguments), str(arguments.hyp))
    except (EvalError, OSError) as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    text = json.dumps(result, ensure_ascii=False, indent=1) if arguments.json else as_table(result)
    sys.stdout.write(f"{text}\n")
    return 0


def _score_run(
    folder: Path, arguments: argparse.Namespace, metrics: Sequence[Metric], caches: dict[Path, SegmentCache]
) -> bool:
    """Score one cell and print its paths; whether all went well."""
    try:
        cell = read_cell(folder)
        tests = cell.chosen_tests(arguments.test)
        names = cell.metrics or default_metrics(cell.task_type, cell.target_lang)
        chosen = metrics or choose_metrics(names)
    except EvalError as fault:
        sys.stderr.write(f"{fault}\n")
        return False
    cache = caches.setdefault(cell.experiment, SegmentCache(cell.experiment / "cache"))
    good = True
    for test in tests:
        if folder not in arguments.runs and not (test.folder / "generations.jsonl").is_file():
            sys.stderr.write(f"{test.folder}: not generated yet, passed over\n")
            continue
        try:
            outcome = score_test(cell, test, chosen, cache, _options(arguments))
        except (EvalError, OSError) as fault:
            sys.stderr.write(f"{fault}\n")
            good = False
            continue
        sys.stdout.write(f"{outcome.path}\n")
        sys.stderr.writelines(f"{fault}\n" for fault in outcome.faults)
        good = good and not outcome.faults
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _check_usage(arguments)
        names = [name.strip() for name in (arguments.metrics or "").split(",") if name.strip()]
        metrics = choose_metrics(names) if arguments.metrics is not None else ()
        folders = find_cell_folders(arguments.runs)
    except EvalError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    if arguments.hyp:
        return _score_plain(arguments, metrics)
    caches: dict[Path, SegmentCache] = {}
    results = [_score_run(folder, arguments, metrics, caches) for folder in folders]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
