"""A training that is stopped, killed or torn goes on; what it leaves counts when it is whole."""

import json
import os
import signal
import time
from datetime import timedelta

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from processes import fork, until, wait
from tiny_training import add_dpo, change_training, make_cell, make_experiment, read_log
from trained_cells import assert_equal_weights, run, weights
from two_processes import in_two_processes

from po import train
from po.files import write_json
from po.training import checkpoint as checkpoint_module
from po.training.checkpoint import INTERRUPTED, MARKER, AttemptCallback, new_attempt, newest_checkpoint


@pytest.fixture
def sft(tmp_path):
    return make_experiment(tmp_path / "runs")


def slow_steps(monkeypatch, seconds=0.05):
    """Steps take a moment, so that a signal can come between two."""
    on_step_end = AttemptCallback.on_step_end

    def slower(self, *args, **kwargs):
        time.sleep(seconds)
        return on_step_end(self, *args, **kwargs)

    monkeypatch.setattr(AttemptCallback, "on_step_end", slower)


def kill_after_a_checkpoint(folder, monkeypatch):
    slow_steps(monkeypatch)
    child = fork(lambda: run(folder))
    until(lambda: list(folder.glob(f"attempts/*/checkpoint-*/{MARKER}")))
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL


def undisturbed(folder):
    """The weights of a run from beginning to end, which are then removed."""
    assert run(folder) == 0
    found = weights(folder)
    for name in ("model.json", "train.json"):
        (folder / name).unlink()
    return found


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_after_sigterm_training_goes_on_to_the_same_weights(sft, method, monkeypatch):
    folder = sft
    if method == "dpo":
        run(sft)
        folder = add_dpo(sft.parents[1], sft)
    expected = undisturbed(folder)
    slow_steps(monkeypatch)
    child = fork(lambda: run(folder))
    until(lambda: list(folder.glob(f"attempts/*/checkpoint-*/{MARKER}")))
    os.kill(child, signal.SIGTERM)
    assert wait(child) == INTERRUPTED
    assert not (folder / "model.json").exists()
    (marker,) = folder.glob(f"attempts/*/checkpoint-*/{MARKER}")
    stopped = json.loads(marker.read_text())["step"]
    assert 2 <= stopped < 6
    assert run(folder) == 0
    assert json.loads((folder / "train.json").read_text())["resumed"] is True
    assert_equal_weights(weights(folder), expected)
    assert [row["step"] for row in read_log(folder) if "loss" in row][-1] == 6


def test_after_kill_9_training_goes_on_to_the_same_weights(sft, monkeypatch):
    expected = undisturbed(sft)
    kill_after_a_checkpoint(sft, monkeypatch)
    assert run(sft) == 0
    assert json.loads((sft / "train.json").read_text())["resumed"] is True
    assert_equal_weights(weights(sft), expected)


def test_a_checkpoint_with_a_damaged_file_is_passed_over(sft, monkeypatch):
    expected = undisturbed(sft)
    kill_after_a_checkpoint(sft, monkeypatch)
    for marker in sft.glob(f"attempts/*/checkpoint-*/{MARKER}"):
        os.truncate(marker.parent / "optimizer.pt", 100)
    with pytest.warns(UserWarning, match="optimizer.pt is damaged; its checkpoint is passed over"):
        assert run(sft) == 0
    assert json.loads((sft / "train.json").read_text())["resumed"] is False
    assert_equal_weights(weights(sft), expected)


def test_a_torn_checkpoint_and_one_of_other_settings_do_not_count(tmp_path):
    for step, stage_hash in ((10, "ours"), (20, "ours"), (30, "theirs")):
        checkpoint = new_attempt(tmp_path) / f"checkpoint-{step}"
        checkpoint.mkdir()
        write_json(checkpoint / MARKER, {"step": step, "stage_hash": stage_hash})
    torn = new_attempt(tmp_path) / "checkpoint-40"
    torn.mkdir()
    assert newest_checkpoint(tmp_path, "ours") == tmp_path / "attempts" / "2" / "checkpoint-20"
    assert newest_checkpoint(tmp_path, "nobody's") is None
    assert new_attempt(tmp_path).name == "5"


def test_a_torn_checkpoint_is_passed_over_in_training(sft):
    torn = new_attempt(sft) / "checkpoint-4"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    assert run(sft) == 0
    assert json.loads((sft / "train.json").read_text())["resumed"] is False


def watch_the_disk(monkeypatch):
    """Every flush and every document that is written, in order, by name."""
    found, write = [], checkpoint_module.write_json
    for module in (train, checkpoint_module):
        monkeypatch.setattr(module, "sync_tree", lambda folder: found.append(folder.name))

    def noted(path, document):
        found.append(path.name)
        write(path, document)

    for module in (train, checkpoint_module):
        monkeypatch.setattr(module, "write_json", noted)
    return found


def test_weights_are_on_the_disk_before_a_mark_says_that_they_are(sft, monkeypatch):
    seen = watch_the_disk(monkeypatch)
    change_training(sft, max_steps=2)
    assert run(sft) == 0
    marks = [name for name in seen if not name.startswith("progress")]
    assert marks == ["checkpoint-2", MARKER, "model", "train.json", "model.json"]
    base = make_cell(sft.parents[1], "tiny.toy.base.s1--0", None)
    seen.clear()
    assert run(base) == 0
    assert seen == ["model", "train.json", "model.json"]


def test_the_first_process_alone_decides_what_is_done_and_what_is_resumed(sft, monkeypatch):
    """Another node may see a folder as it was: without the newest checkpoint, or without the model."""
    checkpoints, attempts = [], sft / "attempts"
    make_trainer = train.make_trainer

    def noted(settings, recipe, tokenizer, output, callbacks):
        trainer = make_trainer(settings, recipe, tokenizer, output, callbacks)
        go = trainer.train
        trainer.train = lambda resume_from_checkpoint: (
            checkpoints.append(resume_from_checkpoint) or go(resume_from_checkpoint=resume_from_checkpoint)
        )
        return trainer

    def work(rank):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "make_trainer", noted)
            if rank == 1:
                patch.setattr(train, "is_trained", lambda settings: False)
                patch.setattr(checkpoint_module, "newest_checkpoint", lambda *_: attempts / "1" / "older")
            code = train.main([str(sft)])
        (sft / f"{rank}.txt").write_text(str(checkpoints))
        return code

    change_training(sft, max_steps=2, retain="all")
    assert run(sft) == 0
    for name in ("model.json", "train.json"):
        (sft / name).unlink()
    change_training(sft, max_steps=4)
    in_two_processes(sft, work)
    assert [(sft / f"{rank}.txt").read_text() for rank in range(2)] == [
        str([str(attempts / "1" / "checkpoint-2")])
    ] * 2
    in_two_processes(sft, work)
    assert [(sft / f"{rank}.txt").read_text() for rank in range(2)] == ["[]", "[]"]
    assert sorted(path.name for path in attempts.iterdir()) == ["1", "2"]


def test_only_the_newest_checkpoint_is_kept_unless_all_are_wanted(sft):
    change_training(sft, retain="all")
    run(sft)
    kept = sorted(path.parent.name for path in sft.glob(f"attempts/1/*/{MARKER}"))
    assert kept == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_processes_wait_for_the_first_one_longer_than_torch_would(sft, monkeypatch):
    """The group is made here, before transformers could say how long; NCCL's own ten minutes kill a pass."""
    given, initialize = [], torch.distributed.init_process_group

    def meet(backend, **options):
        given.append(options["timeout"])
        initialize("gloo", init_method=f"file://{sft / 'meeting'}", **options)

    def work(rank):
        for state in (AcceleratorState, GradientState, PartialState):  # of the process that forked
            state._reset_state()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        monkeypatch.setattr(torch.distributed, "init_process_group", meet)
        assert train.main([str(sft)]) == 0
        group = torch.distributed.group.WORLD
        assert given == [train.LONGEST_WAIT] == [group._get_backend(torch.device("cpu")).options._timeout]
        torch.distributed.destroy_process_group()
        return 0

    change_training(sft, max_steps=2)
    assert [wait(child, 90) for child in [fork(lambda rank=rank: work(rank)) for rank in range(2)]] == [0, 0]
    assert train.LONGEST_WAIT >= timedelta(hours=6)


def test_after_training_signals_mean_what_they_meant_before(sft):
    before = signal.getsignal(signal.SIGTERM)
    run(sft)
    assert signal.getsignal(signal.SIGTERM) is before
