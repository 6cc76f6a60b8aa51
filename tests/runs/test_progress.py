"""What a reproduction shows while it runs, in a terminal and in a log file, and how good its estimates are."""

from __future__ import annotations

import os
import pty
import re
import sys
import termios
from contextlib import suppress
from types import SimpleNamespace

import pytest

from soi_lib.runs import scheduler


def job(setting: str, examples: int) -> SimpleNamespace:
    return SimpleNamespace(setting=(setting,), examples=examples, training=SimpleNamespace(epochs=5))


def simulate(monkeypatch: pytest.MonkeyPatch, jobs: dict[str, SimpleNamespace], costs: dict[str, float]) -> float:
    """Two workers need 40 s to start, 3 s before each run, then do 20 units of cost per second; return the total."""
    clock = 0.0
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: clock)
    shown = scheduler.Display(jobs, costs, finished=1, workers=2, quiet=False)
    queue = sorted(jobs, key=lambda key: -costs[key])
    hands = {worker: ["", 43.0, 0.0] for worker in range(2)}  # run, time of its next report, examples done
    while hands:
        worker = min(hands, key=lambda w: hands[w][1])
        key, clock, done = hands[worker]
        if key and done < jobs[key].examples:
            n = min(40, jobs[key].examples - done)
            shown.report(key, int(5 * done / jobs[key].examples), n)
            hands[worker] = [key, clock + n * costs[key] / jobs[key].examples / 20, done + n]
            continue
        if key:
            shown.report(key, None, 0)
        if queue:
            hands[worker] = [queue.pop(0), clock + 3, 0]
        else:
            del hands[worker]
    shown.bar.close()
    return clock


def test_a_log_file_has_one_line_per_state_and_the_first_estimate_is_close(monkeypatch, tmp_path):
    jobs = {f"{name}{i}": job(name, n) for i in range(8) for name, n in (("short", 1000), ("long", 1500))}
    costs = {key: one.examples * (2.2 if one.setting == ("long",) else 1.0) for key, one in jobs.items()}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        monkeypatch.setattr(sys, "stderr", log)
        took = simulate(monkeypatch, jobs, costs)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "\r" not in text
    assert lines[0].startswith("runs 1/17:   0 %")
    assert lines[-1].startswith("runs 17/17: 100 %")
    assert [line for line in lines if line.startswith("runs 9/17")]
    assert len(lines) <= 2 + len(jobs) + took / 30
    assert "estimating, epochs: long 1/5" in lines[1]
    first = next(line for line in lines if " left, " in line)
    minutes = int(re.search(r"about (\d+) min left, \d+ examples/s", first)[1])
    assert minutes * 60 == pytest.approx(took - 43 - 30, rel=0.15)


def test_a_terminal_shows_one_bar(monkeypatch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        simulate(monkeypatch, {"a": job("own", 500)}, {"a": 500.0})
    text = ""
    with os.fdopen(ours, "rb", buffering=0) as screen, suppress(OSError):  # an error instead of an end
        while part := screen.read(4096):
            text += part.decode()
    first, *_, last = text.rstrip().split("\r")[1:]
    assert first.startswith("runs 1/2:   0 %|")
    assert last.startswith("runs 2/2: 100 %|")
    assert text.count("\n") == 1
