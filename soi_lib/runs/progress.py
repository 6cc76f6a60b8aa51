"""The progress of several runs: what is done, what is running, and about how long the rest takes.

In a terminal this is one bar. In a log file it is one line every half minute and one per finished run; if there are few
runs, also one line per epoch.

The time left is estimated from the cost of the examples trained so far (weighted by how long each takes) and the time
that they took. The start of the workers, their slow first steps, and work done elsewhere are not counted. The estimate
is shown after some seconds of steady work.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from soi_lib.runs.spec import Job

_SLOW = 5.0
"""Seconds after the first training step that are left out of the estimate."""
_STEADY = 10.0
"""Seconds of training after that before the time left is estimated."""
_LINE = 30.0
"""Seconds between two lines in a log file."""
_FEW = 8
"""With at most this many runs, a log file has one line per epoch."""


class _Lines:
    """A log file, in which every state of a bar is a separate line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a state without the carriage return and trailing blanks, which are for terminals."""
        if text.strip():
            self.file.write(text.strip() + "\n")

    def flush(self) -> None:
        self.file.flush()


def in_lines() -> bool:
    """Return whether standard error is a log file: neither a terminal nor a notebook, which can draw a bar."""
    return not (sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook))


def error_stream() -> Any:
    """Return the stream that a bar writes to: standard error, line by line if it is a log file."""
    return _Lines(sys.stderr) if in_lines() else sys.stderr


class Display:
    """One bar, or lines, over all runs.

    Args:
        jobs: the runs to do, by key.
        costs: how long each of them takes, in any unit.
        finished: how many runs were done before.
        workers: how many runs are done side by side.
    """

    def __init__(
        self, jobs: Mapping[str, Job], costs: Mapping[str, float], *, finished: int, workers: int, quiet: bool
    ) -> None:
        self.jobs, self.finished, self.workers = jobs, finished, workers
        self.total = finished + len(jobs)
        self.seen = dict.fromkeys(jobs, 0)
        self.epoch: dict[str, int] = {}
        self.cost = {key: costs[key] / job.examples for key, job in jobs.items()}
        """Cost of one example, by key."""
        self.left = {key: costs[key] for key in jobs}
        self.steady_from = math.inf
        self.trained = self.examples = 0.0
        """Cost and number of examples since `steady_from`."""
        self.lines, self.last_line = in_lines(), time.monotonic()
        self.bar = tqdm(
            desc=f"runs {finished}/{self.total}: ",
            total=sum(job.examples for job in jobs.values()),
            disable=quiet,
            dynamic_ncols=not self.lines,
            file=error_stream(),
            leave=not self.lines,
            mininterval=math.inf if self.lines else 0.5,
            maxinterval=math.inf if self.lines else 10,
            bar_format="{desc}{percentage:3.0f} %"
            + ("," if self.lines else "|{bar}|")
            + " {n_fmt}/{total_fmt} examples [{elapsed}{postfix}]",
        )

    def listen(self, reports: Any) -> None:
        """Process reports (key, epoch, examples) until None arrives; an epoch of None means that the run is done."""
        while (report := reports.get()) is not None:
            self.report(*report)

    def report(self, key: str, epoch: int | None, n: int) -> None:
        """Count `n` more examples of a run in its `epoch`, or count the run as done."""
        now = time.monotonic()
        news = epoch is None or (len(self.jobs) <= _FEW and epoch != self.epoch.get(key))
        if epoch is None:
            self.epoch.pop(key, None)
            self.left.pop(key)
            n = self.jobs[key].examples - self.seen[key]  # smaller splits and runs done elsewhere: not our work
            self.finished += 1
        else:
            self.epoch[key] = epoch
            n = min(n, self.jobs[key].examples - self.seen[key])  # for a stage the total is an estimate
            self.left[key] = max(0.0, self.left[key] - n * self.cost[key])
            if now >= self.steady_from:
                self.trained += n * self.cost[key]
                self.examples += n
            self.steady_from = min(self.steady_from, now + _SLOW)
        self.seen[key] += n
        self._describe()
        self.bar.update(n)
        if self.lines and (news or now - self.last_line >= _LINE):
            self.bar.refresh()
            self.last_line = now

    def _describe(self) -> None:
        self.bar.set_description(f"runs {self.finished}/{self.total}", refresh=False)
        parts = [self._time_left()] if self.left else []
        if self.epoch:
            names = {k: f"{'+'.join(self.jobs[k].setting)} {e + 1}" for k, e in self.epoch.items()}
            running = [f"{name}/{self.jobs[k].training.epochs}" for k, name in names.items()]
            parts.append(f"epochs: {', '.join(running)}")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)

    def _time_left(self) -> str:
        """Return the time left and the speed, in words; a run has one worker, so the longest run is a lower bound."""
        taken = time.monotonic() - self.steady_from
        if taken < _STEADY or not self.trained:
            return "estimating"
        work = max(sum(self.left.values()), self.workers * max(self.left.values()))
        return f"{_duration(work * taken / self.trained)} left, {self.examples / taken:.0f} examples/s"


def _duration(seconds: float) -> str:
    """Return an approximate duration in words."""
    if seconds < 90:
        return f"about {math.ceil(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"
