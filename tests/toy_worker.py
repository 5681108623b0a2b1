"""What ``experiments.launch`` starts in tests: each process notes what it sees, then does what it is told."""

import json
import os
import pathlib
import signal
import time


def main(argv):
    folder, what, *rest = argv
    note = {"pid": os.getpid(), "environment": dict(os.environ)}
    return globals()[what](pathlib.Path(folder), note, *rest)


def give(folder, note, code):
    _write(folder, note)
    return int(code)


def sleep(folder, note):
    _write(folder, note)
    time.sleep(60)
    return 0


def save_slowly(folder, note):
    """Takes a second over the stop that it is asked for, however often it is asked."""
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    _write(folder, note)
    while not asked:
        time.sleep(0.01)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.01)
    (folder / f"saved.{os.environ['RANK']}").touch()
    return 85


def _write(folder, note):
    path = folder / f"note.{os.environ['RANK']}.json"
    path.with_suffix(".new").write_text(json.dumps(note))
    path.with_suffix(".new").rename(path)


def read_notes(folder):
    """What the processes saw, by rank."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("note.*.json"))]
