"""What the tests of commands share; a module says in `place` which folder it works in."""

from __future__ import annotations

import pytest
from own_data import run_main


@pytest.fixture
def soi(place, monkeypatch, capsys):
    """The command in this process, in the folder of the files."""
    monkeypatch.chdir(place)
    return lambda *words: run_main(monkeypatch, capsys, *words)
