"""Time `make book` from scratch, unchanged, and after a change of prose; measure start-up times and file sizes.

    .venv/bin/python benchmarks/whole.py                # about a quarter of an hour on two idle cores
    .venv/bin/python benchmarks/whole.py --parts start bytes

The book is built in a fresh clone of this checkout's commit, with this environment and the cached data, which is what
`make book` does once environment and data are in place. It is built once from scratch (training.py measures the spread
of trainings); everything else is repeated `--repeats` times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=["start", "bytes", "book"], default=["start", "bytes", "book"])
    parser.add_argument("--profile", default="quick")
    given = parser.parse_args()
    if given.quick:
        given.repeats, given.parts = 1, ["start", "bytes"]
    record = bench.Record("whole", given)
    for part in given.parts:
        {"start": start, "bytes": sizes, "book": book}[part](record, given)
        record.save()
    print(record.save())
    return 0


def start(record: bench.Record, given: Any) -> None:
    """Measure the seconds from start to exit of a process, after one uncounted call."""
    soi = Path(sys.executable).with_name("soi")
    for key, command in (
        ("whole.import", [sys.executable, "-c", "import soi_lib"]),
        ("whole.help", [str(soi), "--help"]),
    ):
        times = [bench.timed(lambda command=command: said(command)) for _ in range(given.repeats + 1)]  # type: ignore[misc]
        record.figure(key, times[1:])


def sizes(record: bench.Record, given: Any) -> None:
    """Measure bytes per example per epoch, for a large file and for the files of the recorded runs."""
    from analysis import made

    from soi_lib import TrainingDynamics

    n, epochs = (20_000 if given.quick else 1_000_000), 10
    with tempfile.TemporaryDirectory() as folder:
        size = made(n, epochs, 2, 0).save(Path(folder) / "d.parquet").stat().st_size
    record.figure("whole.bytes", [size / n / epochs])
    files = sorted((bench.ROOT / "data" / "recorded").glob("*/*/dynamics/*.parquet"))[: 5 if given.quick else None]
    each = []
    for file in files:
        dyn = TrainingDynamics.load(file)
        each.append(file.stat().st_size / len(dyn) / dyn.epochs)
    record.figure("whole.bytes_recorded", each)


def book(record: bench.Record, given: Any) -> None:
    """Time `python -m paper book` in a clone: from scratch, unchanged, and after a change of one sentence."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        said(["git", "clone", "--quiet", "--local", str(bench.ROOT), str(clone)])
        env = os.environ | {"PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
        command = [sys.executable, "-m", "paper", "book", "--profile", given.profile]

        def make() -> None:
            subprocess.run(command, cwd=clone, env=env, stdout=subprocess.DEVNULL, check=True)

        record.figure("whole.all", [bench.timed(make) / 60])
        record.save()
        again, prose = [], []
        for turn in range(given.repeats):
            again.append(bench.timed(make))
            change(clone / "notebooks" / "multi_source.ipynb", turn)
            prose.append(bench.timed(make))
        record.figure("whole.again", again)
        record.figure("whole.prose_time", prose)


def change(notebook: Path, turn: int) -> None:
    """Add a sentence to the first Markdown cell."""
    value = json.loads(notebook.read_text(encoding="utf-8"))
    cell = next(cell for cell in value["cells"] if cell["cell_type"] == "markdown")
    cell["source"] = "".join(cell["source"]) + f"\n\nThis sentence was added by a benchmark, {turn + 1} times so far."
    notebook.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
