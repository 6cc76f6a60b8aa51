"""Measure time and memory from dynamics of 100,000 to 100,000,000 examples x 10 epochs to a data map, disk to disk.

    .venv/bin/python benchmarks/streaming.py                     # needs 8 GB of disk in --folder; about ten minutes
    .venv/bin/python benchmarks/streaming.py --largest 10000000

For each size, a folder of files with about a million examples each is written, read, and removed. Each step runs in its
own process, whose peak resident memory is measured (VmHWM on Linux). `map` is `stream_data_map`: it verifies the
checksums, writes the data map, counts categories and finds the regions. The largest size is mapped only once, since it
amounts to a hundred repetitions.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import numpy as np

PART = 1 << 20


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--largest", type=int, default=100_000_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="folder for the temporary files (the system's temporary folder)")
    given = parser.parse_args()
    sizes = [n for n in (10**5, 10**6, 10**7, 10**8) if n <= given.largest]
    if given.quick:
        sizes, given.repeats = [20_000, 200_000], 1
    record = bench.Record("streaming", given)
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            common = {"n": n, "epochs": given.epochs, "path": f"{folder}/runs", "out": f"{folder}/map.parquet"}
            row = {"examples": n, "write": run(common | {"step": "write"})}
            row["bytes"] = sum(path.stat().st_size for path in Path(common["path"]).iterdir())
            times = given.repeats if n <= 10**7 else 1
            found = [run(common | {"step": "map"}) for _ in range(times)]
            row["map"] = {k: sorted(f[k] for f in found)[len(found) // 2] for k in ("seconds", "gib")}
            row["map"]["all"] = [f["seconds"] for f in found]
        rows.append(row)
        print(json.dumps(row), flush=True)
        record.detail("sizes", rows)
        record.save()
    last, million = rows[-1], next((r for r in rows if r["examples"] == 10**6), rows[0])
    each = {n: row["map"]["seconds"] / row["examples"] for n, row in (("last", last), ("million", million))}
    if last["examples"] == 10**8 or given.quick:
        record.figure("streaming.memory", [max(last[step]["gib"] for step in ("write", "map"))])
        record.figure("streaming.map", last["map"]["all"])
        record.figure("streaming.linear", [each["last"] / each["million"]])
    hours, size = 1e10 * each["last"] / 3600, 1e10 * last["bytes"] / last["examples"] / 2**40
    record.detail(
        "said",
        [
            f"10,000,000,000 examples x {given.epochs} would take {hours:.1f} hours and {size:.2f} TiB at this rate on "
            "one such machine (an estimate). The files are shards: K machines with a K-th of the files each take a "
            "K-th of the time; their maps are separate files, and their counts add up."
        ],
    )
    print(record.save())
    return 0


def run(call: dict[str, Any]) -> dict[str, float]:
    """Run a step in its own process; return its seconds and peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(child, (call,))


def child(call: dict[str, Any]) -> dict[str, float]:
    """Run one step; only the step itself is timed."""
    import duckdb  # noqa: F401 - imported before timing starts
    import pyarrow.parquet  # noqa: F401

    from soi_lib.analysis.stream import stream_data_map

    start = time.perf_counter()
    if call["step"] == "write":
        for number, part in enumerate(made(call["n"], call["epochs"])):
            part.save(f"{call['path']}/{number:05}.parquet")
    else:
        assert stream_data_map(call["path"], call["out"], overwrite=True).examples == call["n"]
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return {"seconds": seconds, "gib": peak / 2**20}


def made(n: int, epochs: int) -> Iterator[Any]:
    """Yield dynamics that look like learning in parts, each with its own seed."""
    from soi_lib import TrainingDynamics

    for start in range(0, n, PART):
        size = min(PART, n - start)
        rng = np.random.default_rng(start)
        score = 1.5 * np.log1p(np.arange(epochs, dtype=np.float32))[:, None] + rng.normal(0, 1.8, size).astype(
            np.float32
        )
        score += rng.standard_normal((epochs, size), dtype=np.float32)
        p = 1 / (1 + np.exp(-score))
        ids = np.arange(start, start + size)
        yield TrainingDynamics(ids, rng.integers(0, 2, size), p, p > 0.5, {"classes": 2})


if __name__ == "__main__":
    sys.exit(main())
