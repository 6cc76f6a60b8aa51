"""The benchmarks: their table is made of their records."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_the_readme_is_what_the_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    table = importlib.import_module("table")
    assert (BENCHMARKS / "README.md").read_text(encoding="utf-8") == table.table(BENCHMARKS / "results")
