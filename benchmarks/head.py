"""Memory and time of head and loss: full logits against the forms that never hold them (goal G5).

python -m benchmarks.head                       # about two minutes on two cores
python -m benchmarks.head FORM VOCABULARY FILE  # one measurement, in a process of its own

The loss is DPO on 8 pairs of 40 + 40 completion tokens; hidden states are random. Full logits stand at
completion positions alone, as `torch.nn.functional.cross_entropy` takes them. Growth is the peak of resident
memory less what was resident before; where the head is trained, less the gradient of its weights too, which
any form has to make. Gradients are compared in the same run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import growth_from_now
from benchmarks.table import Row, at_least, equal_within, finish, greatest, plain

PAIRS, COMPLETION, WIDTH = 8, 40, 1024
VOCABULARIES = {"128k": 128_000, "256k": 256_000}
GOAL, TOLERANCE, REPEATS, LIMIT_S = 10.0, 1e-4, 2, 600
NAMES = {
    "full": "full logits",
    "called": "chunks, computed again",
    "tiles": "tiles, computed again",
    "fused": "fused with the loss",
    "frozen-full": "frozen head: full logits",
    "frozen-tiles": "frozen head: tiles, one pass",
}
SKETCH = 8  # columns of the product by which gradients of weights are compared


def _form(name: str, head: Any, hidden: Any, targets: Any) -> Callable[[], Any]:
    """The loss of a form, to be differentiated."""
    import torch
    import torch.nn.functional as F

    from po.engine.fused import fused_rows, slopes_of
    from po.engine.heads import plain_head
    from po.engine.logps import of_logits, token_statistics

    rows = 2 * PAIRS
    row = torch.arange(rows).repeat_interleave(COMPLETION)
    reference = torch.linspace(-440, -400, rows)

    def total(values: Any) -> Any:
        chosen, rejected = (values["logps"] - reference).chunk(2)
        return -F.logsigmoid(0.1 * (chosen - rejected)).sum()

    def summed(tokens: Any) -> Any:
        return total({"logps": torch.zeros(rows).index_add(0, row, tokens)})

    def called(states: Any) -> Any:
        return head(states)

    vocabulary = head.weight.shape[0]
    return {
        "full": lambda: summed(of_logits("logps", head(hidden), targets)),
        "called": lambda: summed(token_statistics(hidden, targets, called, vocabulary)["logps"]),
        "tiles": lambda: summed(token_statistics(hidden, targets, head, vocabulary)["logps"]),
        "fused": lambda: fused_rows(
            hidden, targets, row, torch.arange(PAIRS).repeat(2), plain_head(head), slopes_of(total)
        )[0],
    }[name]


def measured(form: str, vocabulary: int, sketch: Path) -> dict[str, float]:
    """Bytes of growth and seconds of a form in this process; leaves its gradients in a file."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    frozen, name = form.startswith("frozen-"), form.removeprefix("frozen-")

    def step(size: int) -> tuple[Any, Any, int, float]:
        torch.manual_seed(0)
        head = torch.nn.Linear(WIDTH, size, bias=False).requires_grad_(not frozen)
        hidden = torch.randn(2 * PAIRS * COMPLETION, WIDTH).requires_grad_()
        loss = _form(name, head, hidden, torch.randint(size, (len(hidden),)))
        growth, started = growth_from_now(), time.perf_counter()
        loss().backward()
        return head.weight.grad, hidden.grad, growth(), time.perf_counter() - started

    step(1000)
    found = [step(vocabulary) for _ in range(REPEATS)]
    weights, hidden, growth, _ = found[0]
    gradients = [hidden] if frozen else [hidden, weights @ torch.randn(WIDTH, SKETCH)]
    torch.save(gradients, sketch)
    own = 0 if frozen else 4 * vocabulary * WIDTH
    return {"bytes": growth - own, "seconds": min(seconds for *_, seconds in found)}


def _in_a_process(form: str, vocabulary: int, sketch: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.head", form, str(vocabulary), str(sketch)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _gap(sketch: Path, expected: Path) -> float:
    """The largest relative difference of two files' gradients."""
    import torch

    pairs = zip(torch.load(sketch), torch.load(expected), strict=True)
    return greatest(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)


def rows_of(label: str, vocabulary: int) -> list[Row]:
    """Memory and time of every form at one vocabulary, and how far their gradients are apart."""
    from po.engine.fused import pays

    rows, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = {form: Path(folder) / f"{form}.pt" for form in NAMES}
        found = {form: _in_a_process(form, vocabulary, file) for form, file in files.items()}
        for form, figures in found.items():
            base = "frozen-full" if form.startswith("frozen-") else "full"
            mib, seconds = figures["bytes"] / 2**20, figures["seconds"]
            text = f"{mib:.0f} MiB, {seconds:.2f} s"
            if form == base:
                rows.append(plain(f"V = {label}, {NAMES[form]}", text))
                continue
            gaps.append(_gap(files[form], files[base]))
            less, faster = found[base]["bytes"] / figures["bytes"], found[base]["seconds"] / seconds
            figure, text = f"G5 V = {label}, {NAMES[form]}: memory", f"less ({text}; {faster:.2f}x as fast)"
            # a form that the trainer does not take at this vocabulary has no goal to meet
            taken = form.endswith("tiles") or (form == "fused" and pays(vocabulary))
            rows.append(at_least(figure, less, GOAL, text) if taken else plain(figure, f"{less:.2f}x {text}"))
    what = f"V = {label}, gradients against full logits, relative"
    return [*rows, equal_within(what, greatest(gaps), TOLERANCE)]


def measure() -> list[Row]:
    """Rows of (figure, value, goal, verdict)."""
    return [row for label, vocabulary in VOCABULARIES.items() for row in rows_of(label, vocabulary)]


def main(argv: list[str]) -> int:
    """The whole table, or one measurement; 1 where the gradients differ by more than they may."""
    if not argv:
        return finish(measure())
    form, vocabulary, sketch = argv
    print(json.dumps(measured(form, int(vocabulary), Path(sketch))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
