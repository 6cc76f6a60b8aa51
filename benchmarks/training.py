"""Compare our training loop with the Hugging Face Trainer: same model, data, batch size, epochs, seeds; both record.

    .venv/bin/python benchmarks/training.py                             # CPU; about an hour on two idle cores
    .venv/bin/python benchmarks/training.py --corpora english --repeats 5
    .venv/bin/python benchmarks/training.py --device cuda --corpora english intents base128 basemixed   # see gpu.sh
    .venv/bin/python benchmarks/training.py --pack-only     # packs for a machine without corpora

`trainer` is the Trainer with a callback that predicts the training set after every epoch, in its default precision
(fp32) and, if the processor supports it, in bf16; `record` is the Trainer with our two lines instead. Ours is measured
as users run it: `one` is a single run on all threads, `beside` is one single-threaded run per core, started at the same
time and counted together (as in a reproduction and `soi train`). Each training has its own process. A repetition runs
all methods one after another with one seed, so repetitions are seeds, and accuracies are compared over seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest.mock import patch

import bench
import cells

METHODS: dict[str, dict[str, Any]] = {
    "trainer_fp32": {"method": "trainer", "precision": "fp32", "recording": "predict"},
    "trainer_bf16": {"method": "trainer", "precision": "bf16", "recording": "predict"},
    "record_fp32": {"method": "trainer", "precision": "fp32", "recording": "ours"},
    "record_bf16": {"method": "trainer", "precision": "bf16", "recording": "ours"},
    "one": {"method": "ours", "precision": "auto"},
    "beside": {"method": "ours", "precision": "auto"},
}
ON_CUDA = ("trainer_bf16", "record_bf16", "one")


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--corpora", nargs="+", choices=["english", "intents", *cells.SHAPES])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shape-examples", type=int, default=4096, help="examples for the bert-base shapes")
    parser.add_argument("--shape-batch", type=int, default=64)
    parser.add_argument("--packs", type=Path, default=bench.TRIED / "packs")
    parser.add_argument("--pack-only", action="store_true", help="make the packs and stop")
    given = parser.parse_args()
    corpora = given.corpora or ["english", "intents"]
    if given.quick:
        given.examples, given.epochs, given.repeats, corpora = 32, 1, 1, corpora[:1]
        given.shape_examples, given.shape_batch = 16, 4
    packs = {
        name: name if name in cells.SHAPES else str(cells.make_pack(name, given.examples, given.packs))
        for name in corpora
    }
    if given.pack_only:
        print("\n".join(packs.values()))
        return 0
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch cannot use a GPU on this machine")
    record = bench.Record("training", given)
    for name in corpora:
        measure(record, given, name, packs[name])
    print(record.save())
    return 0


def measure(record: bench.Record, given: Any, name: str, pack: str) -> None:
    """Measure all methods on one corpus, `repeats` times; the record is saved after each repetition."""
    shape = name in cells.SHAPES
    common = {
        "pack": pack,
        "examples": given.shape_examples if shape else given.examples,
        "batch": given.shape_batch if shape else given.batch,
        "epochs": 1 if shape else given.epochs,
        "device": given.device,
        "threads": None,
    }
    names = methods(given.device)
    cores = len(os.sched_getaffinity(0))
    rows: dict[str, list[dict[str, Any]]] = {m: [] for m in names}
    for seed in range(given.repeats):
        for method in names:
            call = common | METHODS[method] | {"seed": seed, "rate": method == "one"}
            copies = cores if method == "beside" else 1
            if method == "beside":
                call["threads"] = 1
            found = run([call | {"seed": seed + 100 * i} for i in range(copies)])
            seconds = max(f["end"] for f in found) - min(f["start"] for f in found)
            rows[method].append(found[0] | {"seconds": seconds / copies, "copies": copies})
            print(f"{name} {method} seed {seed}: {seconds / copies:.2f} s, accuracy {found[0]['accuracy']:.3f}")
        report(record, name, given.device, rows)
        record.detail(name, {"call": common | {"pack": name}, "runs": rows})
        record.save()


def methods(device: str) -> list[str]:
    """Return the methods measured on `device`: bf16 only if it is native, since emulation takes hours."""
    import torch

    from soi_lib.training.device import resolve_precision

    if device == "cuda":
        return list(ON_CUDA)
    native = resolve_precision("auto", torch.device(device).type) == "bf16"
    return [name for name, method in METHODS.items() if native or method["precision"] != "bf16"]


def report(record: bench.Record, name: str, device: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Record the figures of everything measured so far."""
    seconds = {method: [run["seconds"] for run in runs] for method, runs in rows.items()}
    for key in bench.FIGURES:
        corpus, place, *rest = key.split(".")
        if (corpus, place) != (name, device) or "/" not in rest[0]:
            continue
        fast, slow = rest[0].split("/")
        if fast in seconds and slow in seconds:
            record.figure(key, bench.ratios(seconds[slow], seconds[fast]))
    if f"{name}.{device}.accuracy_gap" in bench.FIGURES and {"one", "trainer_fp32"} <= set(rows):
        ours, theirs = ([100 * run["accuracy"] for run in rows[m]] for m in ("one", "trainer_fp32"))
        record.figure(f"{name}.{device}.accuracy_gap", [a - b for a, b in zip(ours, theirs, strict=True)])
        if len(theirs) > 1:
            record.figure(f"{name}.{device}.noise", [stdev(theirs)])
    if "one" in rows:
        share = [100 * run["flops"] / run["seconds"] / run["rate"] for run in rows["one"]]
        if f"{name}.{device}.utilisation" in bench.FIGURES:
            record.figure(f"{name}.{device}.utilisation", share)
        record.detail(f"{name} utilisation", share)
    said = [s for s in record.value["details"].get("said", []) if not s.startswith(name)]
    runs = len(next(iter(rows.values())))
    for method, done in rows.items():
        rate = mean(done[0]["tokens"] / run["seconds"] for run in done)
        score = mean(run["accuracy"] for run in done)
        line = f"{name}, {method}: {mean(seconds[method]):.2f} s per training, {rate:,.0f} tokens/s without padding"
        said.append(f"{line}, test accuracy {score:.3f} (means of {runs}).")
    record.detail("said", said)


def run(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start trainings at the same time, each in its own process; return their results."""
    context, threads = multiprocessing.get_context("spawn"), calls[0]["threads"]
    start = context.Barrier(len(calls))
    with (
        patch.dict(os.environ, {"OMP_NUM_THREADS": str(threads)} if threads else {}),
        context.Pool(len(calls), cells.prepare, (start, threads)) as pool,
    ):
        return pool.map(cells.run, calls, chunksize=1)


if __name__ == "__main__":
    sys.exit(main())
