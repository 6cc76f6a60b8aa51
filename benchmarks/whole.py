"""The whole: how long `make book` takes by stage, again, and after a changed sentence; start-up times; size of files.

    .venv/bin/python benchmarks/whole.py                # about a quarter of an hour of two quiet cores
    .venv/bin/python benchmarks/whole.py --parts start bytes

The book is made in a fresh clone of this checkout's commit, with this environment and the data that are in the cache:
what `make book` does after its environment and data are there. Its stages are clocked where the library calls them.
Trainings are done once (their own spread is in training.py); the rest as often as asked.
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

STAGES = """
import json, sys, time
from pathlib import Path
from paper import build as publish
from soi_lib.runs import scheduler as reproduce
spent = {"train": 0.0, "notebooks": 0.0, "render": 0.0}
executed = []
def clock(module, name, stage):
    plain = getattr(module, name)
    def call(*args, **kwargs):
        start = time.perf_counter()
        out = plain(*args, **kwargs)
        spent[stage] += time.perf_counter() - start
        if stage == "notebooks":
            executed.extend(str(path) for path in out)
        return out
    setattr(module, name, call)
clock(reproduce, "reproduce", "train")
clock(reproduce, "reproduce_stages", "train")
clock(publish, "execute", "notebooks")
clock(publish, "render", "render")
start = time.perf_counter()
publish.make_book(Path.cwd(), sys.argv[1], Path("runs"), jobs=None, quiet=True)
print(json.dumps({"all": time.perf_counter() - start, "executed": executed, **spent}))
"""


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
    """Seconds from the shell to the end of the process, after one that is not counted."""
    soi = Path(sys.executable).with_name("soi")
    for key, command in (
        ("whole.import", [sys.executable, "-c", "import soi_lib"]),
        ("whole.help", [str(soi), "--help"]),
    ):
        times = [bench.timed(lambda command=command: said(command)) for _ in range(given.repeats + 1)]  # type: ignore[misc]
        record.figure(key, times[1:])


def sizes(record: bench.Record, given: Any) -> None:
    """Bytes an example and epoch, of a long file and of those of the recorded runs."""
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
    """make book in a clone: everything, then nothing changed, then a sentence changed."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        said(["git", "clone", "--quiet", "--local", str(bench.ROOT), str(clone)])
        first = make(clone, given.profile)
        record.detail("first", first)
        for stage in ("train", "notebooks", "render"):
            record.figure(f"whole.{stage}", [first[stage]])
        record.figure("whole.all", [first["all"] / 60])
        record.save()
        again, prose, executed = [], [], []
        for turn in range(given.repeats):
            again.append(bench.timed(lambda: make(clone, given.profile)))
            change(clone / "notebooks" / "multi_source.ipynb", turn)
            found: dict[str, Any] = {}
            prose.append(bench.timed(lambda found=found: found.update(make(clone, given.profile))))  # type: ignore[misc]
            executed.append(len(found["executed"]))
            assert found["train"] < 5, "something was trained again"
        record.figure("whole.again", again)
        record.figure("whole.prose", executed)
        record.figure("whole.prose_time", prose)


def make(clone: Path, profile: str) -> dict[str, Any]:
    """What `python -m paper book` does, in the clone and with its library; seconds by stage."""
    env = os.environ | {"PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STAGES, profile], cwd=clone, env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    out: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return out


def change(notebook: Path, turn: int) -> None:
    """Add a sentence to the first cell of prose."""
    value = json.loads(notebook.read_text(encoding="utf-8"))
    cell = next(cell for cell in value["cells"] if cell["cell_type"] == "markdown")
    cell["source"] = "".join(cell["source"]) + f"\n\nThis sentence was added by a benchmark, {turn + 1} times so far."
    notebook.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
