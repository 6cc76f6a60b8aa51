"""The benchmarks: their table is made of their records, and their records say what was measured."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def modules() -> Any:
    """Some of the scripts, imported as they import each other, and gone from the path afterwards."""
    sys.path.insert(0, str(BENCHMARKS))
    names = ("bench", "table")
    try:
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in names:
            sys.modules.pop(name, None)


def test_the_readme_is_what_the_records_say(modules: Any) -> None:
    assert (BENCHMARKS / "README.md").read_text(encoding="utf-8") == modules.table.table(BENCHMARKS / "results")


def a_record(modules: Any, path: Path, values: dict[str, list[float]], *, quick: bool = False) -> Any:
    record = modules.bench.Record("analysis", argparse.Namespace(out=path, quick=quick))
    for key, found in values.items():
        record.figure(key, found)
    record.save()
    return record


def test_a_figure_is_the_median_of_the_latest_call_that_has_it(modules: Any, tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    a_record(modules, path, {"analysis.2.all": [0.3, 0.1, 0.2], "analysis.2.transition": [5.0]})
    a_record(modules, path, {"analysis.2.all": [0.14, 0.12, 0.9]})
    a_record(modules, path, {"analysis.2.all": [7.0]}, quick=True)
    assert len(json.loads(path.read_text())) == 3
    rows = modules.table.table(tmp_path).splitlines()
    (one,) = [row for row in rows if "2 classes: Parquet" in row]
    assert "at most 0.15 s | 0.14 s [0.12, 0.9], n = 3 | yes | 1 |" in one
    (other,) = [row for row in rows if "2 classes: 6x6" in row]
    assert "| 5 ms | yes | 2 |" in other
    (none,) = [row for row in rows if "5 classes: 6x6" in row]
    assert "not measured" in none
