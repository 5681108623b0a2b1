"""A study that trains for seconds, and its runner as a process; for the tests that look at whole runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

MANIFEST = """
version: 1
name: micro
models:
  tiny:
    from_scratch:
      {hidden_size: 64, layers: 2, heads: 2, max_positions: 96, tokenizer: {vocab_size: 400}}
tasks:
  numbers:
    type: translation
    source_lang: en
    target_lang: de
    data: {generator: numbers, seed: 3, sft: 256, train: 24, dev: 8, test: 12}
    prompt: "{{ source }}\\n"
    pairs: {from: sft, samples: 3, choose: reference-worst, batch_size: 24}
    max_completion_length: 48
    generation: {max_new_tokens: 32, batch_size: 6}
    metrics: [chrf]
methods:
  sft: {params: {learning_rate: 5.0e-3, max_steps: 30, global_batch_size: 16, per_device_batch_size: 16}}
  dpo: {from: sft, params: {beta: 0.1}}
  cpo: {from: sft, params: {beta: 0.1}}
seeds: [1, 2]
from_seed: first
training: {max_steps: 6, global_batch_size: 8, per_device_batch_size: 4, learning_rate: 1.0e-3, save_steps: 2}
"""


def write_manifest(folder: Path, text: str = MANIFEST) -> Path:
    path = folder / "micro.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def start_runner(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "experiments.run",
        str(folder / "micro.yaml"),
        "--runs",
        str(folder / "runs"),
        *options,
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, *options: str, code: int = 0) -> str:
    runner = start_runner(folder, *options)
    output, _ = runner.communicate(timeout=240)
    assert runner.returncode == code, output
    return output


def scores(folder: Path) -> dict[str, list[object]]:
    """Cell name -> its scores, without the seconds that they took."""
    found = {}
    for path in sorted((folder / "runs" / "micro").glob("cells/*/generate/*/scores.json")):
        cell = json.loads((path.parents[2] / "cell.json").read_text())["name"]
        rows = json.loads(path.read_text())["scores"]
        found[cell] = [(row["metric"], row["score"]) for row in rows]
    return found


def attempts(folder: Path) -> dict[str, int]:
    """Log file of a stage -> how often it was begun."""
    root = folder / "runs" / "micro"
    logs = sorted(root.glob("*/*/logs/*.log"))
    return {str(path.relative_to(root)): path.read_text().count(": attempt ") for path in logs}
