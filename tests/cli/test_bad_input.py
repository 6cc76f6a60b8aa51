"""Bad input as a person gives it to the commands that read: one line, exit code 2, nothing written, nothing lost.

What `soi train` refuses in a file is in test_cli_train, damage on disk in runs/test_damage.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_data import csv, snapshot
from synthetic import learn
from test_dynamics import forge

from soi_lib import files
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.store import seal

Soi = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, wheels: list[Path]) -> Path:
    """Dynamics in files; read only."""
    folder = tmp_path_factory.mktemp("bad")
    dyn = learn(300, 6)
    dyn.save(folder / "a.parquet")
    strangers = np.array([f"other-{i}" for i in range(300)], dtype=object)
    TrainingDynamics(strangers, dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "strangers.parquet")
    TrainingDynamics(dyn.ids, 1 - dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "golds.parquet")
    csv(folder / "mine.csv", pd.DataFrame({"id": dyn.ids, "text": "a text"}))
    (folder / "folder.csv").mkdir()
    return folder


def refused(soi: Soi, place: Path, words: tuple[object, ...], message: str) -> None:
    """One line on standard error, exit code 2, and every file as it was."""
    before = snapshot(place)
    code, out, err = soi(*words)
    assert (code, out) == (2, ""), (words, out, err)
    assert err.startswith("error: "), err
    assert len(err.strip().splitlines()) == 1, err
    assert re.search(message, err), err
    assert snapshot(place) == before
    assert not list(place.rglob(f"{files.PREFIX}*"))


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files may not grow beyond 500 bytes: what a full disk does to a writer, where none can be mounted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "words",
    [
        ("map", "a.parquet", "--out", "new.csv"),
        ("select", "a.parquet", "FRGE_1", "ACE", "--from", "mine.csv", "--out", "new.csv"),
        ("report", "a.parquet", "--out", "new.html"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_full_disk_leaves_everything_as_it_was(soi: Soi, place: Path, words: tuple[str, ...], no_room: None) -> None:
    refused(soi, place, words, r"could not write; found ")


@pytest.mark.parametrize("command", ["map", "report"])
def test_an_interruption_while_writing_loses_nothing(
    soi: Soi, place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Ctrl-C after the bytes are written and before they get their name: what was there stays."""

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    before = snapshot(place)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", strike)
        code, out, err = soi(command, "a.parquet", "--out", "mine.csv", "--force")
    assert (code, out) == (130, "")
    assert err.endswith("interrupted; run the same command again to continue\n")
    assert snapshot(place) == before


def test_another_schema_version(soi: Soi, tmp_path: Path) -> None:
    """In a file, and in a run, whole and sealed as a later version of the library would leave it."""
    run = tmp_path / "run"
    (run / "dynamics").mkdir(parents=True)
    path = forge(run / "dynamics" / "new.parquet", schema=2)
    seal(run, {"key": "a"})
    for words in (("categorize", path), ("select", run, "UNE"), ("report", path, "--out", tmp_path / "r.html")):
        refused(soi, tmp_path, words, r"new\.parquet: .*found 2, expected 1")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("categorise", "x"), "Did you mean 'categorize'"),
        (("categorize",), "'FILE'"),
        (("categorize", "nothing.parquet"), "nothing.parquet"),
        (("categorize", "folder.csv"), r"folder\.csv"),
        (("compare", "a.parquet", "strangers.parquet"), r"no id in common"),
        (("compare", "a.parquet", "golds.parquet"), r"gold"),
        (("map", "a.parquet", "--out", "folder.csv", "--force"), r"folder\.csv"),
        (("select", "a.parquet", "UNE", "--control", "all"), "'random'"),
        (("select", "a.parquet", "UNE", "--out", "mine.csv"), r"mine\.csv.*--force"),
        (("label-issues", "a.parquet", "--out", "/proc/soi.csv"), r"/proc/soi\.csv"),  # nobody may write there
        (("report", "a.parquet", "--out", "mine.csv"), r"mine\.csv.*--force"),
        (("train", "--dataset", "../out=mine.csv", "--out", "new"), r"\.\./out"),
        (("plan", "--jsn"), "--json"),
        (("plan", "--profile", "quik"), "'quick'"),
        (("run", "zzz"), "zzz"),
        (("results", "--only", "source", "--out", "results.json"), "source tweets seed 0"),
        (("book",), "book"),
    ],
)
def test_what_cannot_be_is_refused(soi: Soi, place: Path, words: tuple[object, ...], named: str) -> None:
    refused(soi, place, words, named)
    assert not (place / "new").exists()
