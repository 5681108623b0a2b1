"""A corpus and a test set of small files, prepared as the stages do it."""

import json
from pathlib import Path
from typing import Any

from experiments import prepare

MODEL = {"from_scratch": {"tokenizer": {"kind": "bpe", "vocab_size": 300}}}


class Study:
    """A corpus and a test set of small files, prepared as the stages do it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rendering: dict[str, Any] = {
            "prompt": "{{ source }}\n",
            "source_lang": "en",
            "target_lang": "de",
            "chat_template": None,
            "max_prompt_length": 20,
            "max_completion_length": 20,
        }

    def source(self, name: str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"dataset": str(path), "revision": None, "split": None, "columns": {}, "limit": None} | more

    def folder(self, name: str, **unit: Any) -> Path:
        folder = self.root / "data" / name
        folder.mkdir(parents=True)
        (folder / "unit.json").write_text(json.dumps({"hash": f"hash of {name}", "model": MODEL, **unit}))
        return folder

    def corpus(self, sft: dict[str, Any], train: dict[str, Any] | None = None) -> Path:
        splits = {"sft": sft, "train": train or sft}
        return self.folder("corpus", kind="corpus", rendering=self.rendering, splits=splits)

    def test(self, source: dict[str, Any]) -> Path:
        return self.folder("test", kind="test", corpus="data/corpus", test="news", source=source)


def done(folder: Path) -> dict[str, Any]:
    assert prepare.main([str(folder)]) == 0
    found: dict[str, Any] = json.loads((folder / "prepare.json").read_text())
    return found
