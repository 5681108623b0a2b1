"""Methods of every kind through a whole study: prepared, paired, trained, generated from, scored."""

import json

from study import run, scores, write_manifest

METHODS = """
methods:
  sft: {params: {learning_rate: 5.0e-3, max_steps: 30, global_batch_size: 16, per_device_batch_size: 16}}
  kto: {from: sft}
  bco: {from: sft}
  pl_dpo: {from: sft}
  tdpo2: {from: sft}
  mallows_dpo: {from: sft}
  ld_dpo: {from: sft}
  odpo: {from: sft}
  moving: {method: tr_dpo(ipo), from: sft, params: {sync_steps: 2}}
  weighted: {method: wpo(simpo), from: sft}
  summed: {method: "mix(dpo, bco_pair, sft)", from: sft}
"""
HEAD = """
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
    pairs: {from: sft, samples: 3, choose: reference-worst, batch_size: 24, ranked: true}
    max_completion_length: 48
    generation: {max_new_tokens: 32, batch_size: 6}
    metrics: [chrf]
seeds: [1]
training: {max_steps: 4, global_batch_size: 8, per_device_batch_size: 4, learning_rate: 1.0e-3, save_steps: 2}
"""


def test_methods_of_every_kind_are_trained_and_measured_in_one_study(tmp_path):
    write_manifest(tmp_path, HEAD + METHODS)
    run(tmp_path)
    assert len(scores(tmp_path)) == 11
    logs = {}
    for cell in sorted((tmp_path / "runs" / "micro" / "cells").iterdir()):
        rows = [json.loads(line) for line in (cell / "train_log.jsonl").read_text().splitlines()]
        logs[json.loads((cell / "cell.json").read_text())["method_name"]] = rows[0]
    assert all(log["loss"] == log["loss"] for log in logs.values())
    assert "kl" in logs["kto"] and "reward_shift" in logs["summed"]
    kinds = {
        tuple(json.loads(path.read_text())["kinds"])
        for path in (tmp_path / "runs" / "micro" / "reference").glob("*/reference.json")
    }
    assert kinds >= {
        ("logps",),
        ("logps", "entropy"),
        ("logps", "token_logps"),
        ("logps", "mismatched_logps"),
    }
