"""The runner's progress on a terminal: one bar for all jobs, one line for each that ends."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from experiments.atomic import read_json
from experiments.job import Job
from experiments.stage_status import read_status
from po.data.screen import counts_in_words

_TAIL_LINES = 6


class TerminalDisplay:
    """Writes to stderr; jobs that were done before are only counted."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        bar_format = "{n_fmt}/{total_fmt} stages |{bar:20}| {elapsed} {postfix}"
        # into a file or a pipe go the lines alone
        self._bar = tqdm(
            total=len(jobs), dynamic_ncols=True, bar_format=bar_format, disable=not sys.stderr.isatty()
        )
        self._total = len(jobs)
        self._already = 0
        self._shown = 0.0

    def say(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def finished(self, job: Job, outcome: str, seconds: float) -> None:
        """A line for what this runner did; for a failure its last words and where the log is."""
        self._bar.update()
        if outcome == "done" and not seconds:
            self._already += 1
            return
        self.say(f"{outcome:>11}  {job.label}" + (f"  {seconds:.1f} s" if seconds else ""))
        if outcome == "failed":
            self._explain(job)
        if outcome == "done" and job.stage == "prepare":
            self._count(job)

    def _count(self, job: Job) -> None:
        """What was left out of training data, or cut."""
        for split, counts in read_json(job.folder / "prepare.json").get("splits", {}).items():
            if any(value for key, value in counts.items() if key.startswith(("dropped_", "truncated_"))):
                self.say(f"             | {split}: {counts_in_words(counts)}")

    def _explain(self, job: Job) -> None:
        status = read_status(job.folder, job.stage)
        error = (status.error if status else None) or {}
        tail = error.get("traceback_tail", [])
        said = [number for number, line in enumerate(tail) if line.startswith("error: ")]
        for line in tail[said[-1] :] if said else tail[-_TAIL_LINES:]:
            self.say(f"             | {line}")
        log = job.folder / "logs" / f"{job.stage}.log"
        if log.is_file():
            self.say(f"             log: {log}")

    def tick(self, running: Sequence[Job]) -> None:
        """Shows what runs now, at most four times a second."""
        if time.monotonic() - self._shown > 0.25:
            self._bar.set_postfix_str(", ".join(job.label for job in running), refresh=True)
            self._shown = time.monotonic()

    def close(self) -> None:
        """Takes the bar away and says what was found done."""
        self._bar.set_postfix_str("")
        self._bar.close()
        if self._already:
            self.say(f"{self._already} of {self._total} stages were done before")
