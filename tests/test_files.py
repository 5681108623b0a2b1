"""Files are whole or not there, and on the disk before a mark says that they are."""

import errno
import json
import os
from pathlib import Path

import pytest

from po.files import sync_tree, write_json, write_whole


@pytest.fixture
def synced(monkeypatch):
    """Paths of what was flushed to the disk, in order."""
    found, fsync = [], os.fsync

    def noted(handle):
        found.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_two_processes_of_one_id_do_not_write_one_temporary_file(tmp_path, monkeypatch):
    """As in two containers that share a folder: the second begins and ends while the first writes."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "logps.npy"

    def slow(file):
        file.write(b"first, ")
        write_whole(path, lambda other: other.write(b"the other's"))
        assert path.read_bytes() == b"the other's"
        file.write(b"whole")

    write_whole(path, slow)
    assert path.read_bytes() == b"first, whole"
    assert os.listdir(tmp_path) == ["logps.npy"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "logps.npy"
    path.write_bytes(b"old")

    def fails(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, fails)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["logps.npy"]


def test_a_file_is_flushed_before_it_gets_its_name_and_its_folder_afterwards(tmp_path, synced):
    write_json(tmp_path / "facts.json", {"text": "Ü"})
    assert json.loads((tmp_path / "facts.json").read_bytes()) == {"text": "Ü"}
    temporary, folder = synced
    assert temporary.name.startswith(".facts.json.") and temporary.suffix == ".tmp"
    assert folder == tmp_path


def test_a_tree_is_flushed_from_its_leaves_to_its_name(tmp_path, synced):
    folder = tmp_path / "model"
    (folder / "adapter").mkdir(parents=True)
    for path in (folder / "weights", folder / "adapter" / "weights"):
        path.touch()
    sync_tree(folder)
    assert set(synced) == {*folder.rglob("*"), folder, tmp_path}
    for path in synced[:-1]:
        assert synced.index(path) < synced.index(path.parent)
