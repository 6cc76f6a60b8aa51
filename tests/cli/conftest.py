"""What the tests of commands share."""

from __future__ import annotations

import pytest
from own_data import run_main


@pytest.fixture
def place(tmp_path):
    """The folder in which a command works; a module may replace it."""
    return tmp_path


@pytest.fixture
def soi(place, monkeypatch, capsys):
    """A command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(place)
    return lambda *words: run_main(monkeypatch, capsys, *words)
