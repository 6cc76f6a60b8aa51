"""Bad input as a person gives it to the commands that read: one line, exit code 2, nothing written, nothing lost.

What `soi train` refuses in a file is in test_cli_train, damage on disk in runs/test_damage, and what the library
refuses in memory beside its own module.
"""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_data import csv, rows, run_main, snapshot
from synthetic import learn
from test_dynamics import forge

from soi_lib import files
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.store import seal

Soi = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels: list[Path]) -> Path:
    """Dynamics in files; read only."""
    folder = tmp_path_factory.mktemp("bad")
    dyn = learn(300, 6)
    dyn.save(folder / "a.parquet")
    strangers = np.array([f"other-{i}" for i in range(300)], dtype=object)
    TrainingDynamics(strangers, dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "strangers.parquet")
    TrainingDynamics(np.arange(300), dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "numbers.parquet")
    TrainingDynamics(dyn.ids, 1 - dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "golds.parquet")
    csv(folder / "mine.csv", pd.DataFrame({"id": dyn.ids, "text": "a text"}))
    (folder / "folder.csv").mkdir()
    return folder


@pytest.fixture
def soi(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Soi:
    monkeypatch.chdir(made)
    return lambda *words: run_main(monkeypatch, capsys, *words)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "a.parquet", "strangers.parquet"), r"no id in common"),
        (("compare", "a.parquet", "numbers.parquet"), r"whole-number"),
        (("compare", "a.parquet", "golds.parquet", "--json"), r"300 ids.*gold|gold.*300 ids"),
        (("categorize", "folder.csv"), r"folder\.csv: .*director"),
        (("compare", "a.parquet", "."), r"director"),
        (("label-issues", "a.parquet", "--from", "folder.csv"), r"folder\.csv: .*directory"),
        (("map", "a.parquet", "--out", "folder.csv"), r"folder\.csv: "),
        (("map", "a.parquet", "--out", "folder.csv", "--force"), r"folder\.csv: "),
        (("select", "a.parquet", "UNE", "--out", "folder.csv", "--force"), r"folder\.csv: "),
        (("map", "a.parquet", "--out", "mine.csv"), r"mine\.csv: the file is already there\. Next: pass --force"),
        (("select", "a.parquet", "UNE", "--out", "mine.csv"), r"mine\.csv: the file is already there.*--force"),
        (("label-issues", "a.parquet", "--out", "mine.csv"), r"mine\.csv: the file is already there.*--force"),
        (("report", "a.parquet", "--out", "mine.csv"), r"mine\.csv: the file is already there.*--force"),
        (("map", "a.parquet", "--out", "mine.csv/map.csv"), r"mine\.csv/map\.csv: could not write; found "),
        (("report", "absent"), r"absent: no such file or folder"),
        (("train", "--train", "folder.csv", "--out", "new"), r"folder\.csv: no split for 'train'"),
        (("train", "--member", "../out=mine.csv", "--out", "new"), r"\.\./out"),
        (("train", "--member", "a/b=mine.csv", "--out", "new"), r"a/b"),
    ],
)
def test_what_cannot_be_is_refused(soi: Soi, made: Path, words: tuple[object, ...], message: str) -> None:
    refused(soi, made, words, message)
    assert not (made / "new").exists()


@pytest.mark.parametrize("command", ["map", "select", "label-issues", "report"])
def test_no_permission_to_write(soi: Soi, made: Path, command: str) -> None:
    """Nobody may make a file below /proc, root included."""
    words = {"select": ("a.parquet", "UNE")}.get(command, ("a.parquet",))
    out = "/proc/soi.html" if command == "report" else "/proc/soi.csv"
    refused(soi, made, (command, *words, "--out", out), rf"{re.escape(out)}: could not write; found ")


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
        ("map", "a.parquet", "--out", "new.parquet"),
        ("select", "a.parquet", "FRGE_1", "ACE", "--out", "new.csv"),
        ("select", "a.parquet", "FRGE_1", "ACE", "--from", "mine.csv", "--out", "new.csv"),
        ("label-issues", "a.parquet", "--out", "mine.csv", "--force"),
        ("report", "a.parquet", "--out", "new.html"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_full_disk_leaves_everything_as_it_was(soi: Soi, made: Path, words: tuple[str, ...], no_room: None) -> None:
    refused(soi, made, words, r"could not write; found ")


@pytest.mark.parametrize("command", ["map", "select", "label-issues", "report"])
def test_an_interruption_while_writing_loses_nothing(
    soi: Soi, made: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Ctrl-C after the bytes are written and before they get their name: what was there stays."""

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    before = snapshot(made)
    words = {"select": ("a.parquet", "UNE")}.get(command, ("a.parquet",))
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", strike)
        code, out, err = soi(command, *words, "--out", "mine.csv", "--force")
    assert (code, out) == (130, "")
    assert err.endswith("interrupted; the same command continues\n")
    assert snapshot(made) == before


def test_another_schema_version(soi: Soi, tmp_path: Path) -> None:
    """In a file, and in a run, whole and sealed as a later version of the library would leave it."""
    run = tmp_path / "run"
    (run / "dynamics").mkdir(parents=True)
    path = forge(run / "dynamics" / "new.parquet", lambda values: values.update(schema=2))
    seal(run, {"key": "a"})
    for words in (
        ("categorize", path), ("compare", path, path), ("map", path, "--out", tmp_path / "m.csv"),
        ("select", path, "UNE"), ("select", run, "UNE"), ("label-issues", run),
        ("report", path, "--out", tmp_path / "r.html"),
    ):  # fmt: skip
        refused(soi, tmp_path, words, r"new\.parquet: .*found 2, expected 1")


def test_texts_that_are_missing_and_ids_that_repeat(soi: Soi, tmp_path: Path) -> None:
    frame = rows(20)
    frame.loc[4, "text"] = np.nan
    frame.to_parquet(tmp_path / "nan.parquet")
    words = ("train", "--train", tmp_path / "nan.parquet", "--out", tmp_path / "new")
    refused(soi, tmp_path, words, r"rows without text; found 1: row 5")
    lines = [json.dumps(row | {"id": i or 3}) for i, row in enumerate(rows(20).to_dict("records"))]
    (tmp_path / "ids.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("train", "--train", tmp_path / "ids.jsonl", "--id", "id", "--out", tmp_path / "new")
    refused(soi, tmp_path, words, r"the id '3' is used twice; found it in row 1 .* and row 4 ")


def test_a_label_of_the_test_file_that_training_has_not(soi: Soi, tmp_path: Path) -> None:
    train = csv(tmp_path / "train.csv", rows(20, labels=("no", "yes")))
    test = csv(tmp_path / "test.csv", rows(10, start=50, labels=("no", "maybe")))
    words = ("train", "--train", train, "--test", test, "--out", tmp_path / "new")
    refused(soi, tmp_path, words, r"test\.csv: .*labels.*'maybe'.*found 5: row 2 ")
    spec = DatasetSpec(path=str(train), test=str(test), drop=("unknown-labels",))
    assert len(load_dataset("a", spec).corpus.splits["test"]) == 5
