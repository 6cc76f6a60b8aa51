"""The progress of several runs: what is done, what is in hand, and about how long the rest takes.

In a terminal it is one bar. In a log file it is a line every half a minute, and one for every run that is finished; a
few runs also have a line an epoch.

The time left comes from the cost of what was trained (examples weighted by how long they take) over the time that it
took. Not counted are the start of the workers, their first steps, which are slow, and what others had done already. It
is shown once it rests on some seconds of steady work.
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
"""Seconds after the first training step that say nothing of those to come."""
_STEADY = 10.0
"""Seconds of training after that, from which on the time left is estimated."""
_LINE = 30.0
"""Seconds between two lines in a log file."""
_FEW = 8
"""Up to so many runs have a line an epoch."""


class _Lines:
    """A log file, in which every state of a bar is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a state; the carriage return before it and the blanks behind it are for terminals."""
        if text.strip():
            self.file.write(text.strip() + "\n")

    def flush(self) -> None:
        self.file.flush()


def in_lines() -> bool:
    """Whether standard error is a log file: neither a terminal nor a notebook, where a bar can be drawn."""
    return not (sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook))


def error_stream() -> Any:
    """Where a bar writes: standard error, in lines if it is a log file."""
    return _Lines(sys.stderr) if in_lines() else sys.stderr


class Display:
    """One bar, or lines, over all runs.

    Args:
        jobs: the runs that are to do, by key.
        costs: how long each of them takes, in any unit.
        finished: how many runs were done before.
        workers: how many are done side by side.
    """

    def __init__(
        self, jobs: Mapping[str, Job], costs: Mapping[str, float], *, finished: int, workers: int, quiet: bool
    ) -> None:
        self.jobs, self.finished, self.workers = jobs, finished, workers
        self.total = finished + len(jobs)
        self.seen = dict.fromkeys(jobs, 0)
        self.epoch: dict[str, int] = {}
        self.cost = {key: costs[key] / job.examples for key, job in jobs.items()}
        """Of one example."""
        self.left = {key: costs[key] for key in jobs}
        self.steady_from = math.inf
        self.trained = self.examples = 0.0
        """Cost and number of examples since then."""
        self.lines, self.last_line = in_lines(), time.monotonic()
        self.bar = tqdm(
            desc=f"runs {finished}/{self.total}: ",
            total=sum(job.examples for job in jobs.values()),
            unit_scale=True,
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
        """Take reports (key, epoch, examples) until None comes; an epoch of None says that the run is done."""
        while (report := reports.get()) is not None:
            self.report(*report)

    def report(self, key: str, epoch: int | None, n: int) -> None:
        """Count `n` more examples of a run in its `epoch`, or the run as done."""
        now = time.monotonic()
        news = epoch is None or (len(self.jobs) <= _FEW and epoch != self.epoch.get(key))
        if epoch is None:
            self.epoch.pop(key, None)
            self.left.pop(key)
            n = self.jobs[key].examples - self.seen[key]  # smaller splits and runs done elsewhere: no work of ours
            self.finished += 1
        else:
            self.epoch[key] = epoch
            n = min(n, self.jobs[key].examples - self.seen[key])  # their number is about right for a stage
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

    def close(self) -> None:
        """The end of the bar."""
        self.bar.close()

    def _describe(self) -> None:
        self.bar.set_description(f"runs {self.finished}/{self.total}", refresh=False)
        parts = [self._time_left()] if self.left else []
        if self.epoch:
            names = {k: f"{'+'.join(self.jobs[k].setting)} {e + 1}" for k, e in self.epoch.items()}
            running = [f"{name}/{self.jobs[k].training.epochs}" for k, name in names.items()]
            parts.append(f"epochs: {', '.join(running)}")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)

    def _time_left(self) -> str:
        """In words, with the speed; no run is quicker than one worker, so the longest one decides in the end."""
        taken = time.monotonic() - self.steady_from
        if taken < _STEADY or not self.trained:
            return "estimating"
        work = max(sum(self.left.values()), self.workers * max(self.left.values()))
        return f"{_duration(work * taken / self.trained)} left, {self.examples / taken:.0f} examples/s"


def _duration(seconds: float) -> str:
    """About how long, in words."""
    if seconds < 90:
        return f"about {math.ceil(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"
