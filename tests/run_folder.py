"""A small run folder, written as docs/files.md says, with real sacreBLEU statistics."""

import hashlib
import json
import random
from pathlib import Path

import pandas as pd
from sacrebleu.metrics import BLEU, CHRF

VERSIONS = {"torch": "2.13.0", "transformers": "5.19.0"}
WORDS = (
    "der kleine Hund schläft unter dem alten Tisch am Bahnhof um halb sieben drei Äpfel zwei Birnen".split()
)
REFERENCES = [" ".join(random.Random(row).choices(WORDS, k=5 + row % 8)) for row in range(60)]
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
CHRF_SIGNATURE = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def outputs(error_rate, seed):
    """The references with each word replaced at that rate."""
    draw = random.Random(f"{error_rate}-{seed}")
    noisy = (
        [draw.choice(WORDS) if draw.random() < error_rate else word for word in row.split()]
        for row in REFERENCES
    )
    return [" ".join(words) for words in noisy]


def write_json(path, **document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, **document}), encoding="utf-8")


def _lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _scores(hypotheses):
    """(metric, object of scores.json, segment scores, statistics) of BLEU and chrF."""
    scorers = (
        ("bleu", BLEU(), BLEU(effective_order=True), BLEU_SIGNATURE, {"kind": "bleu"}),
        (
            "chrf",
            CHRF(),
            CHRF(),
            CHRF_SIGNATURE,
            {"kind": "chrf", "char_order": 6, "word_order": 0, "beta": 2},
        ),
    )
    for metric, corpus, segment, signature, aggregation in scorers:
        stats = corpus._extract_corpus_statistics(hypotheses, [REFERENCES])
        each = [
            segment.sentence_score(hyp, [ref]).score for hyp, ref in zip(hypotheses, REFERENCES, strict=True)
        ]
        entry = {
            "metric": metric,
            "score": corpus.corpus_score(hypotheses, [REFERENCES]).score,
            "signature": signature,
            "segment_signature": signature,
            "unit": "points, 0-100",
            "direction": "higher",
            "aggregation": aggregation,
            "n": len(hypotheses),
            "wall_s": 0.1,
        }
        yield metric, entry, each, stats


def write_measurement(folder, hypotheses, versions=None, alarmed=False):
    """generations.jsonl, generation.json, segments.parquet and scores.json of one test set."""
    ids = [f"test-{row}" for row in range(len(hypotheses))]
    generations = folder / "generations.jsonl"
    rows = zip(reversed(ids), reversed(hypotheses), strict=True)
    _lines(
        generations,
        [
            {
                "id": name,
                "prompt_hash": "00",
                "outputs": [{"text": text, "n_tokens": 9, "finish_reason": "stop"}],
            }
            for name, text in rows
        ],
    )
    settings = {"do_sample": False, "max_new_tokens": 64}
    write_json(
        folder / "generation.json",
        hash="g",
        settings=settings,
        backend="transformers",
        versions=versions or VERSIONS,
        device="cpu",
        dtype="float32",
        n_segments=len(ids),
        complete=True,
        seconds=1.0,
        tokens=9 * len(ids),
    )
    table, entries = [], []
    for metric, entry, each, stats in _scores(hypotheses):
        entries.append(entry)
        table += zip(ids, [metric] * len(ids), each, [list(map(float, row)) for row in stats], strict=True)
    table += [(name, "hyp_chars", float(len(text)), None) for name, text in zip(ids, hypotheses, strict=True)]
    pd.DataFrame(table, columns=["id", "metric", "score", "stats"]).to_parquet(folder / "segments.parquet")
    write_json(
        folder / "scores.json",
        generations_sha256=hashlib.sha256(generations.read_bytes()).hexdigest(),
        n_segments=len(ids),
        scores=entries,
        diagnostics=[
            {
                "name": "empty_rate",
                "value": 0.1 if alarmed else 0.0,
                "alarm": "> 0",
                "alarmed": alarmed,
                "n": len(ids),
            },
            {
                "name": "seq_rep_4",
                "value": 0.05 if alarmed else 0.01,
                "alarm": None,
                "alarmed": False,
                "n": len(ids),
            },
        ],
        counts={"empty": 0, "truncated": 0, "newline": 0},
    )


class RunFolder:
    """Builds runs/NAME cell by cell; ``plan()`` writes plan.json over all that was added."""

    def __init__(self, root: Path, **report):
        self.root, self.report, self.entries = root, {"baseline": "sft", "select": None} | report, []
        for split in ("test", "dev"):
            data = root / f"data/tiny.numbers.{split}--0000000000"
            _lines(
                data / "rows.jsonl",
                [
                    {"id": f"test-{row}", "source": f"source {row}", "references": [text]}
                    for row, text in enumerate(REFERENCES)
                ],
            )
            write_json(
                data / "prepare.json", rows=len(REFERENCES), overlap={"train": 3 if split == "test" else 0}
            )

    def entry(self, method, seed, axes=None):
        """Put a cell into the plan and return its folder, which is not made."""
        words = "".join(f".{key}{value}" for key, value in (axes or {}).items())
        name = f"tiny.numbers.{method}{words}.s{seed}"
        hashes = {
            stage: hashlib.sha256(f"{name}{stage}".encode()).hexdigest()
            for stage in ("train", "generate", "score")
        }
        folder = f"cells/{name}--{hashes['train'][:10]}"
        self.entries.append(
            {
                "name": name,
                "folder": folder,
                "model": "tiny",
                "task": "numbers",
                "method": method,
                "seed": seed,
                "axes": axes or {},
                "train_method": method,
                "hashes": hashes,
            }
        )
        return self.root / folder

    def cell(self, method, seed, axes=None, parent=None, tests=("test",), pairs_scorer=None):
        """A cell with cell.json and a training log, not yet scored."""
        folder = self.entry(method, seed, axes)
        entry = self.entries[-1]
        places = {
            name: {
                "data": f"data/tiny.numbers.{name}--0000000000",
                "hash": "h",
                "folder": f"generate/{name}--1111111111",
            }
            for name in tests
        }
        write_json(
            folder / "cell.json",
            kind="cell",
            name=entry["name"],
            hash=entry["hashes"]["train"],
            model_name="tiny",
            task_name="numbers",
            method_name=method,
            seed=seed,
            axes=axes or {},
            train={"method": method},
            parent=parent and parent.relative_to(self.root).as_posix(),
            tests=places,
            metrics=["bleu", "chrf"],
            pairs_scorer=pairs_scorer,
            hashes=entry["hashes"],
        )
        return folder

    def status(self, folder, **states):
        """status.<stage>.json of the stages named; a state may carry an error class after a colon."""
        hashes = json.loads((folder / "cell.json").read_text())["hashes"]
        for stage, words in states.items():
            state, _, error = words.partition(":")
            fault = {"class": error, "traceback_tail": []} if error else None
            write_json(
                folder / f"status.{stage}.json",
                stage=stage,
                state=state,
                stage_hash=hashes[stage],
                error=fault,
            )

    def done(self, method, seed, error_rate, hypotheses=None, versions=None, alarmed=False, **more):
        """A finished cell whose outputs have that share of wrong words."""
        folder = self.cell(method, seed, **more)
        for test in more.get("tests", ("test",)):
            texts = hypotheses or outputs(error_rate, seed)
            write_measurement(folder / f"generate/{test}--1111111111", texts, versions, alarmed)
        log = [{"step": step, "epoch": step / 40, "loss": 0.7 - 0.004 * step} for step in range(10, 50, 10)]
        if method != "sft":
            for row in log:
                row |= {
                    "rewards/margins": row["step"] * error_rate,
                    "rewards/accuracies": 0.5 + row["step"] / 100,
                    "logps/chosen": -20 - row["step"] / 10,
                }
        _lines(folder / "train_log.jsonl", [*log, {"step": 40, "train_runtime": 12.5, "train_loss": 0.6}])
        write_json(folder / "train.json", tokens=12345, device="cpu", versions=versions or VERSIONS)
        self.status(folder, train="done", generate="done", score="done")
        return folder

    def plan(self):
        """Write plan.json and return the folder."""
        write_json(
            self.root / "plan.json",
            name="demo",
            report=self.report,
            manifest_sha256="ab" * 32,
            cells=self.entries,
        )
        return self.root
