"""Time from a dynamics file of 1,000,000 examples x 10 epochs to all metrics and categories, and compare with a copy.

    .venv/bin/python benchmarks/analysis.py
    .venv/bin/python benchmarks/analysis.py --quick

All timings are warm: the file is in the page cache and everything is imported. `all` is what a user does: load the
file, verify its checksum, compute data_map. `metrics` computes the same columns from arrays in memory; `copy` copies
the arrays that it reads (p_gold, history) to allocated memory. The plain formulas over (E, N), without blocks, threads
or tables, verify the results and are timed for comparison.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bench
import numpy as np

from soi_lib import TrainingDynamics, categorize, data_map, transition_matrix


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    if given.quick:
        given.examples, given.repeats = 20_000, 2
    record = bench.Record("analysis", given)
    with tempfile.TemporaryDirectory() as folder:
        for classes in (2, 5):
            measure(record, given, classes, Path(folder))
    print(record.save())
    return 0


def made(n: int, epochs: int, classes: int, seed: int) -> TrainingDynamics:
    """Make dynamics that look like learning: an ease per example, progress over epochs, and noise."""
    rng = np.random.default_rng(seed)
    ease = np.random.default_rng(7).normal(1.0, 1.8, n).astype(np.float32)
    score = ease - 1 + 1.5 * np.log1p(np.arange(epochs, dtype=np.float32))[:, None]
    score += rng.normal(0, 0.9, (epochs, n)).astype(np.float32) - np.float32(np.log(classes - 1))
    p = 1 / (1 + np.exp(-score))
    gold = np.random.default_rng(8).integers(0, classes, n)
    return TrainingDynamics(np.arange(n), gold, p, p > 1 / classes, {"classes": classes})


def plain(dyn: TrainingDynamics) -> dict[str, np.ndarray]:
    """Compute the metrics by their formulas over whole arrays."""
    p, correct = dyn.p_gold.astype(np.float64), dyn.correct
    return {
        "confidence": p.mean(0),
        "variability": p.std(0),
        "correctness": correct.mean(0),
        "forgetfulness": (correct[:-1] & ~correct[1:]).sum(0),
        "never_learned": ~correct.any(0),
        "soi": categorize(correct),
    }


def measure(record: bench.Record, given: object, classes: int, folder: Path) -> None:
    n, epochs = given.examples, given.epochs  # type: ignore[attr-defined]
    dyn, other = made(n, epochs, classes, 0), made(n, epochs, classes, 1)
    path = dyn.save(folder / f"{classes}.parquet")
    dyn, history = TrainingDynamics.load(path), dyn.history
    p, h = np.empty_like(dyn.p_gold), np.empty_like(history)
    other.history  # noqa: B018 - computed and cached, as after loading

    def copy() -> None:
        np.copyto(p, dyn.p_gold)
        np.copyto(h, history)

    found = bench.alternate(
        {
            "all": lambda: data_map(TrainingDynamics.load(path)),
            "load": lambda: TrainingDynamics.load(path),
            "metrics": lambda: data_map(dyn),
            "copy": copy,
            "transition": lambda: transition_matrix(dyn, other),
            "plain formulas": lambda: plain(dyn),
        },
        given.repeats,  # type: ignore[attr-defined]
    )
    oracle, ours = plain(dyn), data_map(dyn)
    for name, values in oracle.items():
        assert np.allclose(ours[name], values, atol=1e-7, rtol=0), name
    record.figure(f"analysis.{classes}.all", found["all"])
    record.figure(f"analysis.{classes}.metrics/copy", bench.ratios(found["metrics"], found["copy"]))
    record.figure(f"analysis.{classes}.transition", [1000 * s for s in found["transition"]])
    record.detail(
        f"{classes} classes",
        {
            "examples": n,
            "epochs": epochs,
            "file_bytes": path.stat().st_size,
            "seconds": {name: [round(s, 6) for s in values] for name, values in found.items()},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
