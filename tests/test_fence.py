"""A training whose claim is another's publishes nothing: no marker, no removal, no model."""

import json
import os

import pytest
from accelerate import PartialState
from processes import fork, wait
from tiny_training import make_cell, make_experiment
from two_processes import start_two_processes

from experiments.claim import Claim, claim_state
from experiments.stage_command import StageCommand, write_command
from experiments.stage_process import run_stage
from experiments.stage_status import read_status
from po import METHODS, train
from po.training import cell_output
from po.training.checkpoint import MARKER, AttemptCallback
from po.training.fence import CLAIM_FILE, CLAIM_TOKEN, LOST, still_ours, stop_if_lost


def rob(folder):
    """Lets another host take the claim over; the victim's own file stays, as after a sudden takeover."""
    path = folder / "claim.train"
    facts = json.loads(path.read_text()) | {"token": "f" * 32, "boot_id": "other", "host": "n2"}
    path.unlink()
    path.write_text(json.dumps(facts))


def test_without_a_claim_a_training_may_publish(monkeypatch):
    monkeypatch.delenv(CLAIM_FILE, raising=False)
    monkeypatch.delenv(CLAIM_TOKEN, raising=False)
    assert still_ours()
    stop_if_lost()


def test_the_fence_asks_for_the_claim_that_is_held(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    with Claim(tmp_path.relative_to(tmp_path.parent), "train") as claim, claim.in_environment():
        monkeypatch.chdir("/")
        assert still_ours()
        stop_if_lost()
        rob(tmp_path)
        assert not still_ours()


@pytest.mark.parametrize("content", [None, b"", b'{"token": "ab', b"[]", b"{}", b"\xff"])
def test_a_claim_that_is_gone_or_damaged_is_not_ours(tmp_path, content):
    with Claim(tmp_path, "train") as claim, claim.in_environment():
        (tmp_path / "claim.train").unlink()
        if content is not None:
            (tmp_path / "claim.train").write_bytes(content)
        assert not still_ours()


def test_a_file_that_has_lost_the_claims_name_is_not_taken_for_the_claim(tmp_path, monkeypatch):
    """A client of NFS may open the old file by its old name for a while after a takeover."""
    with Claim(tmp_path, "train") as claim, claim.in_environment():
        rob(tmp_path)
        old = tmp_path / f"claim.train.{claim.owner.token}"
        monkeypatch.setenv(CLAIM_FILE, str(old))
        assert not still_ours()
        (tmp_path / "claim.train").unlink()
        old.rename(tmp_path / "claim.train")
        assert not claim.still_ours()


def test_a_claim_that_cannot_be_read_is_an_error_and_no_answer(tmp_path):
    with Claim(tmp_path, "train") as claim, claim.in_environment():
        (tmp_path / "claim.train").unlink()
        (tmp_path / "claim.train").mkdir()
        with pytest.raises(IsADirectoryError):
            still_ours()
        with pytest.raises(IsADirectoryError):
            stop_if_lost()
        (tmp_path / "claim.train").rmdir()


def test_the_environment_is_as_before_afterwards(tmp_path, monkeypatch):
    monkeypatch.delenv(CLAIM_FILE, raising=False)
    with Claim(tmp_path, "train") as outer, Claim(tmp_path, "score") as inner:
        with outer.in_environment():
            with inner.in_environment():
                assert os.environ[CLAIM_TOKEN] == inner.owner.token
            assert os.environ[CLAIM_FILE] == str(tmp_path / "claim.train")
        assert CLAIM_FILE not in os.environ


# -- training ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("fence") / "runs").parents[1]


def cell(root, name, trained=True, **training):
    data = {"method": "sft", "params": METHODS["sft"].check_params({}), "data": "data/tiny.toy--0/sft.jsonl"}
    folder = make_cell(root, f"tiny.toy.{name}.s1--0", data if trained else None, **training)
    command = StageCommand(
        module="po.train", argv=(str(folder),), stage_hash=f"hash of {folder.name}", artefacts=("model.json",)
    )
    write_command(folder, "train", command)
    return folder


def robbed_before(monkeypatch, owner, name, folder, call_number):
    """Lets the claim be taken right before a function does its work for the n-th time."""
    original, calls = getattr(owner, name), []

    def late(*args, **kwargs):
        calls.append(1)
        if len(calls) == call_number:
            rob(folder)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)


def markers(folder):
    return sorted(path.parent.name for path in folder.glob(f"attempts/*/*/{MARKER}"))


def run(folder):
    return wait(fork(lambda: run_stage(folder, "train")))


def test_a_checkpoint_of_a_training_that_lost_its_claim_does_not_count_and_removes_none(root, monkeypatch):
    folder = cell(root, "checkpoint")
    with monkeypatch.context() as patch:
        robbed_before(patch, AttemptCallback, "on_save", folder, call_number=2)
        assert run(folder) == LOST
    assert markers(folder) == ["checkpoint-2"]
    assert not (folder / "model.json").exists()
    assert read_status(folder, "train").state == "running", "the status is the taker's to write"
    assert claim_state(folder, "train").owner.token == "f" * 32
    (folder / "claim.train").unlink()
    assert run(folder) == 0
    assert json.loads((folder / "train.json").read_text())["resumed"] is True


def test_a_finished_model_of_a_training_that_lost_its_claim_is_not_published(root, monkeypatch):
    folder = cell(root, "publish")
    (folder / "model").mkdir()
    (folder / "model" / "of-the-taker").touch()
    with monkeypatch.context() as patch:
        robbed_before(patch, cell_output, "write_card", folder, call_number=1)
        assert run(folder) == LOST
    assert markers(folder), "it came to its end"
    assert [path.name for path in (folder / "model").iterdir()] == ["of-the-taker"]
    assert not (folder / "model.json").exists()
    assert not (folder / "train.json").exists()


def test_an_untrained_model_is_not_published_either(root, monkeypatch):
    folder = cell(root, "untrained", trained=False)
    with monkeypatch.context() as patch:
        robbed_before(patch, train, "is_trained", folder, call_number=1)
        assert run(folder) == LOST
    assert not (folder / "model.json").exists()
    assert not (folder / "model").exists()


@pytest.mark.parametrize(
    ("trouble", "codes"), [("lost", [LOST, LOST]), ("unreadable", [2, 3]), ("none", [0, 0])]
)
def test_all_processes_of_a_training_stop_together(tmp_path, trouble, codes):
    """Only the first can read the claim here; one that went on alone would wait for the other for ever."""
    place = tmp_path / "claim.train"
    if trouble == "unreadable":
        place.mkdir()
    elif trouble == "none":
        place.write_text(json.dumps({"token": "a"}))
        os.link(place, tmp_path / "facts")

    def work(rank):
        PartialState(cpu=True)  # as the trainer does
        os.environ |= {CLAIM_FILE: str(place if rank == 0 else "/nowhere"), CLAIM_TOKEN: "a"}
        try:
            stop_if_lost()
        except IsADirectoryError:
            os._exit(2)
        except RuntimeError as error:
            os._exit(3 if "the first process cannot read the claim" in str(error) else 4)
        except SystemExit as error:
            os._exit(error.code)

    assert [wait(child, 90) for child in start_two_processes(tmp_path, work)] == codes
