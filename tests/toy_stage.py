"""A stage for tests: appends its pid to ``calls.txt`` in the cell's folder, then does what argv[1] names."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

from experiments.stage_command import StageCommand, write_command
from experiments.stage_status import effective_state

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}


def main(argv):
    folder, what = pathlib.Path(argv[0]), argv[1]
    with open(folder / "calls.txt", "a") as calls:
        calls.write(f"{os.getpid()}\n")
    return globals()[what](folder, *argv[2:])


def write(folder):
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text("abc")
    (folder / "model.json").write_text("{}")
    return 0


def give(folder, code):
    print("what is wrong", file=sys.stderr)
    return int(code)


def leave(folder, code):
    sys.exit(int(code))


def fail(folder):
    deeper(30)


def deeper(n):
    if n == 0:
        raise KeyError("no such column")
    deeper(n - 1) if n % 2 else deeper(n - 1) + 0


def save_too_much(folder):
    import numpy
    from safetensors.numpy import save_file

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        save_file({"weights": numpy.zeros(10_000)}, folder / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def nothing(folder):
    return None


def sleep(folder):
    (folder / "started").touch()
    for _ in range(1200):  # a signal just before one long call would only be heard after it
        time.sleep(0.05)
    return 0


def sleep_once(folder):
    return write(folder) if (folder / "started").exists() else sleep(folder)


def sleep_to_boundary(folder):
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    (folder / "started").touch()
    while not stop:
        time.sleep(0.01)
    (folder / "checkpoint").touch()
    return 85


def sleep_in_child(folder):
    (folder / "started").touch()
    subprocess.run([sys.executable, "-c", "print('from the child', flush=True)"], check=True)
    print("from the stage")
    return write(folder)


def plan(folder, *what, artefacts=("model.json", "model"), stage_hash="abc", max_attempts=3):
    write_command(
        folder,
        "train",
        StageCommand(
            module="toy_stage",
            argv=(str(folder), *what),
            stage_hash=stage_hash,
            artefacts=artefacts,
            max_attempts=max_attempts,
        ),
    )


def n_calls(folder):
    return len((folder / "calls.txt").read_text().splitlines())


def state(folder, stage_hash="abc", **options):
    return effective_state(folder, "train", stage_hash, **options)


def start(folder, *options):
    """Starts the stage as the runner would."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.stage_process", str(folder), "train", *options],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, SIGINT is ignored, and whoever is started inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
