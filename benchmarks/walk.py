"""List the modules involved in getting from logits to a heatmap, and from a CSV file to the HTML report.

    .venv/bin/python benchmarks/walk.py

Prints the modules of soi_lib in the order of their first call, and the calls from a layer to a higher one. The second
walk trains for half a minute.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from test_import_rule import layer


class Walk:
    """Collect the modules of soi_lib that are called while active, and calls from a layer to a higher one."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.climbs: dict[str, None] = {}

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event != "call" or not name.startswith("soi_lib.") or _importing(frame):
            return
        self.modules.setdefault(name)
        caller = frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
        if caller.startswith("soi_lib.") and layer(name) < layer(caller):
            self.climbs.setdefault(f"{caller} calls {name}")

    def __enter__(self) -> Walk:
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


class InProcess(ThreadPoolExecutor):
    """The scheduler's pool without processes, since calls in other processes cannot be observed."""

    def __init__(self, **_: object) -> None:
        super().__init__(max_workers=1)

    def submit(self, work: Callable[..., Any], spec: Any, root: Path, then: Any) -> Future[Any]:  # type: ignore[override]
        """Execute the run, and what follows it, immediately in this thread; `work` would report to the parent."""
        from soi_lib.runs.scheduler import do
        from soi_lib.runs.store import RunStore

        done: Future[Any] = Future()
        done.set_result(do(spec, RunStore(root)))
        then(spec)
        return done


def _importing(frame: FrameType | None) -> bool:
    """Return whether a call is part of importing a module of the library."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").startswith("soi_lib"):
            return True
        frame = frame.f_back
    return False


def heatmap(folder: Path) -> None:
    """Go from logits to a figure: recorder, file, categories, transitions."""
    import torch

    from soi_lib import DynamicsRecorder, TrainingDynamics, transition_matrix
    from soi_lib.plots import show, transition_heatmap

    for name in ("alone", "together"):
        recorder = DynamicsRecorder(range(40), [i % 2 for i in range(40)], 2)
        for _ in range(4):
            recorder.update(torch.arange(40), torch.randn(40, 2))
            recorder.end_epoch()
        recorder.finish().save(folder / f"{name}.parquet")
    alone, together = (TrainingDynamics.load(folder / f"{name}.parquet") for name in ("alone", "together"))
    show(transition_heatmap(transition_matrix(alone, together)))


def report(folder: Path) -> None:
    """Go from a CSV file to the HTML report: `soi train`, `soi report`."""
    from soi_lib.cli import app
    from soi_lib.runs import scheduler

    scheduler.ProcessPoolExecutor = InProcess  # type: ignore[misc, assignment]  # count the calls of workers, too
    rows = [f"{'good' if i % 2 else 'bad'} film number {i},{'pos' if i % 2 else 'neg'}" for i in range(60)]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    train = ["train", "--train", str(folder / "films.csv"), "--out", str(folder / "out"), "--epochs", "2"]
    for command in ([*train, "--jobs", "1", "--quiet"], ["report", str(folder / "out")]):
        app(command, standalone_mode=False)


def main() -> None:
    """Take both walks and print them."""
    for title, walk in {"logits to heatmap": heatmap, "CSV file to report": report}.items():
        with tempfile.TemporaryDirectory() as name, Walk() as seen:
            walk(Path(name))
        print(f"{title}: {len(seen.modules)} modules, {len(seen.climbs)} calls up")
        print("  " + ", ".join(module.removeprefix("soi_lib.") for module in seen.modules))
        for climb in seen.climbs:
            print(f"  up: {climb}")


if __name__ == "__main__":
    main()
