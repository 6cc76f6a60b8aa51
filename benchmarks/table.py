"""Make benchmarks/README.md of the records in benchmarks/results.

    .venv/bin/python benchmarks/table.py

Every figure of `bench.FIGURES` has a row, with the latest call that measured it, its target, and whether it is met.
Nothing in README.md is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench

README = bench.ROOT / "benchmarks" / "README.md"
HEAD = """# Benchmarks

Made by `python benchmarks/table.py` from the records in `results/`; not written by hand. A figure is the median of the
repetitions of one call, with the smallest and the largest in brackets; a ratio is taken within each repetition. What
was tried on the way, and what failed, is in [LOG.md](LOG.md). How well wrong labels are found is measured by
`benchmarks/wrong_labels.py` and shown in the book.

To measure: close everything else, then `.venv/bin/python benchmarks/NAME.py` for training, recording, analysis,
streaming and whole (`--quick` only shows that it works), and `benchmarks/gpu.sh` where there is a GPU. Each call is
appended to its record; the table shows the latest one that has the figure. A hundred kills of a reproduction are a
test: `.venv/bin/python tests/runs/kill_anywhere.py --kills 100 --seed 0`.
"""
TITLES = {
    "training": "Training beside the Hugging Face Trainer",
    "recording": "Cost of recording",
    "analysis": "Analysis in memory",
    "streaming": "Analysis of more than memory holds",
    "whole": "The whole",
}


def table(results: Path) -> str:
    """The whole README."""
    parts = [HEAD]
    for name, title in TITLES.items():
        calls = load(results / f"{name}.json")
        used: list[dict[str, Any]] = []
        rows = [
            "| figure | target | measured | met | call |",
            "|---|---|---|---|---|",
            *(row(key, figure, calls, used) for key, figure in bench.FIGURES.items() if figure.record == name),
        ]
        parts += [f"## {title}\n", "\n".join(rows) + "\n"]
        parts += ["\n".join(described(i, call) for i, call in enumerate(used, 1)) + "\n"] if used else []
        parts += [notes(used)] if used and notes(used) else []
    return "\n".join(parts)


def load(path: Path) -> list[dict[str, Any]]:
    """The calls of a record that count, oldest first."""
    calls = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [call for call in calls if not call["quick"]]


def row(key: str, figure: bench.Figure, calls: list[dict[str, Any]], used: list[dict[str, Any]]) -> str:
    """A row of the table; the call that it comes from is put into `used`."""
    target = "" if figure.target is None else f"{figure.sense} {figure.target:g} {figure.unit}".strip()
    if figure.where == "GPU":
        target = f"{target} (GPU)" if target else "(GPU)"
    call = next((call for call in reversed(calls) if key in call["figures"]), None)
    if call is None:
        return f"| {figure.what} | {target} | not measured | | |"
    if call not in used:
        used.append(call)
    found = call["figures"][key]
    value = f"{found['median']:.3g} {figure.unit}".strip()
    if found["n"] > 1:
        value += f" [{found['low']:.3g}, {found['high']:.3g}], n = {found['n']}"
    met = ""
    if figure.target is not None:
        good = found["median"] >= figure.target if figure.sense == "at least" else found["median"] <= figure.target
        met = "yes" if good else "**no**"
    return f"| {figure.what} | {target} | {value} | {met} | {used.index(call) + 1} |"


def described(number: int, call: dict[str, Any]) -> str:
    """One line about a call: command, commit, machine, versions."""
    machine = call["machine"]
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    load = f", load {machine['load']} at the start" if machine["load"] > 0.5 else ""
    torch = f", torch {call['versions']['torch']}" if "torch" in call["versions"] else ""
    return f"{number}. `{call['command']}` at commit `{call['commit'][:12] or 'unknown'}`, {place}{torch}{load}."


def notes(used: list[dict[str, Any]]) -> str:
    """What the details of the calls say in words."""
    out = [f"Call {n}: {sentence}" for n, call in enumerate(used, 1) for sentence in call["details"].get("said", [])]
    return "\n\n".join(out) + ("\n" if out else "")


if __name__ == "__main__":
    bench.files.write_text(README, table(bench.RESULTS))
    print(README)
