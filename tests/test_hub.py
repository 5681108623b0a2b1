"""Weights are fetched by the preparation, which may have a network, and never by what follows."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from experiments.hub import fetch_weights

HUB: dict[str, Any] = {"id": "org/name", "revision": None, "from_scratch": None}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    calls: list[tuple[str, Any]] = []

    def snapshot_download(name: str, *, revision: Any, **_: Any) -> str:
        calls.append((name, revision))
        if name == "org/none":
            raise OSError("404 Client Error")
        return "cache"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return calls


def test_the_weights_of_a_hub_id_are_fetched_at_their_revision(asked: list[tuple[str, Any]]) -> None:
    fetch_weights(HUB | {"revision": "abc123"})
    assert asked == [("org/name", "abc123")]


def test_nothing_is_asked_for_folders_new_models_and_offline(
    asked: list[tuple[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_weights(HUB | {"id": str(tmp_path)})
    fetch_weights({"id": None, "revision": None, "from_scratch": {"layers": 2}})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fetch_weights(HUB)
    assert asked == []


@pytest.mark.usefixtures("asked")
def test_a_model_that_cannot_be_fetched_is_named_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"org/none.*404.*--only stage=prepare"):
        fetch_weights(HUB | {"id": "org/none"})
