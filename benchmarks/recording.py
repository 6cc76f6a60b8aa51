"""Measure the cost of recording, in the training pass and in evaluation mode, relative to training time.

    .venv/bin/python benchmarks/recording.py
    .venv/bin/python benchmarks/recording.py --device cuda

In the training pass, it is the time spent in the calls that record and that end the epochs, divided by training time.
On a GPU, the device is synchronised before and after each of these calls, so the share is an upper bound. In evaluation
mode, it is the time of the extra passes divided by training time, both as counted by the engine. The corpus is English
(MiniLM-L6, tweets, batch 16), on one thread as in real runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bench
import cells


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (1)")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--packs", type=Path, default=bench.TRIED / "packs")
    given = parser.parse_args()
    if given.quick:
        given.examples, given.epochs, given.repeats = 32, 1, 1
    import torch

    if given.device == "cpu":
        torch.set_num_threads(given.threads)
    elif not torch.cuda.is_available():
        parser.error("torch cannot use a GPU on this machine")
    data = cells.Data(str(cells.make_pack("english", given.examples, given.packs)), given.examples)
    record = bench.Record("recording", given)
    call = {"batch": 16, "seed": 0, "precision": "auto", "device": given.device}
    train(data, call, 1)
    inside, extra = [], []
    for _ in range(given.repeats):
        seconds, spent = train(data, call, given.epochs)
        inside.append(100 * spent / seconds["train"])
        seconds, _ = train(data, call | {"record": "eval"}, given.epochs)
        extra.append(100 * seconds["record"] / seconds["train"])
    record.figure(f"record.{given.device}.train", inside)
    record.figure(f"record.{given.device}.eval", extra)
    print(record.save())
    return 0


def train(data: cells.Data, call: dict[str, Any], epochs: int) -> tuple[dict[str, float], float]:
    """Return the seconds of a training by part, and those spent in the calls that record."""
    import torch

    from soi_lib.training import engine

    spent = 0.0

    def wait() -> None:
        if call["device"] == "cuda":
            torch.cuda.synchronize()

    def clocked(function: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            nonlocal spent
            wait()
            start = time.perf_counter()
            function(*args)
            wait()
            spent += time.perf_counter() - start

        return timed

    recorder = engine.DynamicsRecorder
    with (
        patch.object(engine._Run, "_record", clocked(engine._Run._record)),
        patch.object(recorder, "end_epoch", clocked(recorder.end_epoch)),
    ):
        _, result = cells.ours(data, call, epochs)
    return result.seconds, spent


if __name__ == "__main__":
    sys.exit(main())
