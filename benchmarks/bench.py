"""Shared by all benchmarks: the figures with their targets, repeated measurement, and the record of a call.

A script measures, passes its values to `Record.figure` under a name in FIGURES, and saves; `table.py` makes README.md
from the records. A figure is the median of at least five values, with the smallest and the largest; a ratio is the
median of the ratios within each repetition, so that temporary slowness of the machine affects both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from soi_lib import files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TRIED = ROOT / "_build" / "benchmarks"
"""Where calls with --quick are saved: their sizes are too small for meaningful results."""


@dataclass(frozen=True)
class Figure:
    """A row of the table: what is measured, unit, and target (`sense` "at least" or "at most"; None: no target).

    `record` is the file under results/ that holds it, and `where` the kind of machine that the target applies to.
    """

    record: str
    what: str
    unit: str
    target: float | None = None
    sense: str = "at most"
    where: str = "CPU"


_ON_GPU = ("at least", "GPU")


def _training(corpus: str, name: str, fp32: float, bf16: float) -> dict[str, Figure]:
    out = {}
    sides = {"one": "one run on all threads", "beside": "parallel one-thread runs, combined"}
    for ours, title in sides.items():
        for theirs, target in (("fp32", fp32), ("bf16", bf16)):
            words = f"{name}: speedup of ours ({title}) over Trainer {theirs} with a prediction pass per epoch"
            out[f"{corpus}.cpu.{ours}/trainer_{theirs}"] = Figure("training", words, "x", target, "at least")
    for theirs in ("fp32", "bf16"):
        words = f"{name}: speedup of Trainer {theirs} with our two lines over a prediction pass per epoch"
        out[f"{corpus}.cpu.record_{theirs}/trainer_{theirs}"] = Figure("training", words, "x")
    out[f"{corpus}.cpu.accuracy_gap"] = Figure("training", f"{name}: test accuracy, ours minus Trainer fp32", "points")
    out[f"{corpus}.cpu.noise"] = Figure(
        "training", f"{name}: test accuracy of Trainer fp32, standard deviation over seeds", "points"
    )
    out[f"{corpus}.cuda.one/trainer_bf16"] = Figure(
        "training", f"{name}: speedup of ours over Trainer bf16 with a prediction pass per epoch", "x", 4, *_ON_GPU
    )
    return out


def _shape(shape: str, name: str) -> dict[str, Figure]:
    share = f"{name}: share of the bf16 matmul rate measured in the same call"
    return {
        f"{shape}.cuda.one/trainer_bf16": Figure("training", f"{name}: speedup over Trainer bf16", "x", 2, *_ON_GPU),
        f"{shape}.cuda.utilisation": Figure("training", share, "%", 45, *_ON_GPU),
    }


def _analysis(classes: int) -> dict[str, Figure]:
    what = f"1,000,000 x 10, {classes} classes:"
    return {
        f"analysis.{classes}.all": Figure("analysis", f"{what} Parquet to all metrics and categories, warm", "s", 0.15),
        f"analysis.{classes}.metrics/copy": Figure("analysis", f"{what} metrics over a copy of the same bytes", "x", 5),
        f"analysis.{classes}.transition": Figure("analysis", f"{what} 6x6 transition matrix", "ms", 10),
    }


FIGURES: dict[str, Figure] = {
    **_training("english", "English (MiniLM-L6, tweets, batch 16)", 4, 2.5),
    **_training("intents", "Intents (multilingual-e5-small, batch 16)", 5, 3),
    **_shape("base128", "bert-base shape, length 128"),
    **_shape("basemixed", "bert-base shape, mixed lengths"),
    "record.cpu.train": Figure("recording", "Recording in the training pass, share of step time", "%", 1),
    "record.cpu.eval": Figure("recording", "Recording in evaluation mode, on top of training", "%", 30),
    "record.cuda.train": Figure("recording", "Recording in the training pass, share of step time", "%", 1, where="GPU"),
    "record.cuda.eval": Figure("recording", "Recording in evaluation mode, on top of training", "%", 30, where="GPU"),
    **_analysis(2),
    **_analysis(5),
    "streaming.memory": Figure("streaming", "100,000,000 x 10 from disk: peak memory of the process", "GiB", 1),
    "streaming.map": Figure("streaming", "100,000,000 x 10: from a folder of files to one data map", "s"),
    "streaming.linear": Figure("streaming", "time per example at 100,000,000, relative to 1,000,000", "x", 1.25),
    "whole.all": Figure("whole", "make book, profile quick, with data and environment in place", "min", 10),
    "whole.again": Figure("whole", "make book again, nothing changed", "s", 15),
    "whole.prose_time": Figure("whole", "make book after a change to the prose of one notebook", "s"),
    "whole.import": Figure("whole", "python -c 'import soi_lib'", "s", 0.5),
    "whole.help": Figure("whole", "soi --help", "s", 0.5),
    "whole.bytes": Figure("whole", "dynamics file, 1,000,000 x 10: bytes per example per epoch", "B", 5),
    "whole.bytes_recorded": Figure("whole", "dynamics files of the recorded runs: bytes per example per epoch", "B"),
}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts share."""
    out = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--quick", action="store_true", help="tiny sizes, to check that the script works; not a result")
    out.add_argument("--repeats", type=int, default=5, help="repetitions (5)")
    out.add_argument("--out", type=Path, help="the record to append to (benchmarks/results/NAME.json)")
    return out


class Record:
    """One call of a script with its figures and details; appended to the record file, and can be saved repeatedly."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        from soi_lib.runs.run import commit, version

        self.path = given.out or (TRIED if given.quick else RESULTS) / f"{name}.json"
        self.name = name
        shown = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
        self.value: dict[str, Any] = {
            "command": " ".join([".venv/bin/python", f"benchmarks/{Path(sys.argv[0]).name}", *shown]),
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "quick": bool(given.quick),
            "commit": commit(),
            "machine": machine(),
            "versions": {n: version(n) for n in ("soi_lib", "torch", "transformers", "numpy", "pandas", "pyarrow")},
            "figures": {},
            "details": {},
        }

    def figure(self, key: str, values: Iterable[float]) -> None:
        """Add the values of a figure and print their summary; the table shows the median."""
        assert FIGURES[key].record == self.name, key
        numbers = [float(f"{v:.6g}") for v in values]
        self.value["figures"][key] = {
            "median": float(f"{median(numbers):.6g}"),
            "low": min(numbers),
            "high": max(numbers),
            "n": len(numbers),
        }
        entry, figure = self.value["figures"][key], FIGURES[key]
        print(f"{key:40} {entry['median']:10.4g} {figure.unit:4} [{entry['low']:.4g}, {entry['high']:.4g}]", flush=True)

    def detail(self, key: str, value: Any) -> None:
        """Add any other value that belongs to the call."""
        self.value["details"][key] = value

    def save(self) -> Path:
        """Append this call to the record, or update it there."""
        held = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []
        held = [one for one in held if one["started"] != self.value["started"]]
        files.write_json(self.path, [*held, self.value])
        return self.path


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time the functions in turn, so that disturbances affect all of them; the first round is not counted."""
    out: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            seconds = timed(function)
            if turn:
                out[name].append(seconds)
    return out


def ratios(over: Iterable[float], under: Iterable[float]) -> list[float]:
    """Return the ratio of each repetition."""
    return [a / b for a, b in zip(over, under, strict=True)]


def machine() -> dict[str, Any]:
    """Describe processor, usable cores, memory, GPU, system and load, without host names or paths."""
    from soi_lib.training.device import processor

    try:
        memory = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) / 2**20
    except (OSError, ValueError):
        memory = 0.0
    out = {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "system": sys.platform,
        "load": round(os.getloadavg()[0], 2),
    }
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            out["gpu"] = torch.cuda.get_device_name()
    return out
