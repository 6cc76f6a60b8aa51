"""What recording costs: in the training pass as a share of the step, in evaluation mode on top of training.

    .venv/bin/python benchmarks/recording.py
    .venv/bin/python benchmarks/recording.py --device cuda

In the training pass, on a CPU: the time inside the calls that record and that close the epochs, over the time of
training. On a GPU, where calls return before their work is done: trainings with and without recording in turn, the
difference over the time without. Both are kept on both. In evaluation mode: the time of the extra passes over the time
of training, as the engine counts them. English (MiniLM-L6, tweets, batch 16), on one thread as runs are trained.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import cells


class NoRecorder:
    """Takes the recorder's place and records nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.report = None

    def update_at(self, *args: Any) -> None: ...

    def end_epoch(self) -> None: ...

    def finish(self) -> None: ...


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (1)")
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
        parser.error("torch sees no GPU here")
    data = cells.Data(str(cells.make_pack("english", given.examples, given.packs)), given.examples)
    record = bench.Record("recording", given)
    call = {"batch": 16, "seed": 0, "precision": "auto", "device": given.device}
    inside, apart, extra = [], [], []
    train(data, call, 1)
    for _ in range(given.repeats):
        with_it, spent, _ = train(data, call, given.epochs)
        without, _, _ = train(data, call, given.epochs, nothing=True)
        base, _, passes = train(data, call | {"record": "eval"}, given.epochs)
        inside.append(100 * spent / with_it)
        apart.append(100 * (with_it - without) / without)
        extra.append(100 * passes / base)
    record.figure(f"record.{given.device}.train", inside if given.device == "cpu" else apart)
    record.figure(f"record.{given.device}.eval", extra)
    record.detail("percent", {"time in the calls": inside, "with against without": apart, "evaluation mode": extra})
    print(record.save())
    return 0


def train(data: cells.Data, call: dict[str, Any], epochs: int, *, nothing: bool = False) -> tuple[float, float, float]:
    """Seconds of training, of them in recording calls, and of extra passes."""
    from soi_lib.training import engine

    spent = 0.0

    def clocked(function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            nonlocal spent
            start = time.perf_counter()
            function(*args)
            spent += time.perf_counter() - start

        return call

    seconds: dict[str, float] = {}
    kept = engine._Run._record, engine.DynamicsRecorder, engine._curves, engine.train

    class Clocked(engine.DynamicsRecorder):
        end_epoch = None  # type: ignore[assignment]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.end_epoch = clocked(super().end_epoch)

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = kept[3](*args, **kwargs)
        seconds.update(result.seconds)
        return result

    try:
        engine.train = noted
        engine.DynamicsRecorder = NoRecorder if nothing else Clocked  # type: ignore[misc,assignment]
        if nothing:
            engine._curves = lambda *args: {}
        engine._Run._record = (lambda *args: None) if nothing else clocked(kept[0])
        cells.ours(data, call, epochs)
    finally:
        engine._Run._record, engine.DynamicsRecorder, engine._curves, engine.train = kept  # type: ignore[misc]
    return seconds["train"], spent, seconds["record"]


if __name__ == "__main__":
    sys.exit(main())
