import errno
import os

import pytest

from experiments.atomic import explained, read_json, sha256_file, write_json


def test_a_failed_write_leaves_the_old_content_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_json(path, {"n": 1})

    def disk_is_full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OSError, match=f"cannot write {path}: the disk is full") as caught:
        write_json(path, {"n": 2})
    assert caught.value.errno == errno.ENOSPC
    assert read_json(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["plan.json"]


def test_text_beyond_ascii_comes_back_and_the_file_ends_with_a_newline(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, {"name": "Übergröße \u2028"})
    assert read_json(path) == {"name": "Übergröße \u2028"}
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("content", [b"", b'{"n": ', b"\xff\xfe", b"[1]"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "status.train.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="status.train.json: "):
        read_json(path)


def test_nan_is_refused_instead_of_written_as_a_word_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256_file(tmp_path / "a") == expected


def test_an_explained_error_keeps_its_class():
    error = explained(OSError(errno.ENOENT, "No such file"), "write x")
    assert isinstance(error, FileNotFoundError)
    assert "cannot write x: the folder is not there" in str(error)
