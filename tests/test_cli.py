"""The command line as a person meets it: help, tables, JSON, one-line errors with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from soi_lib import SOI, TrainingDynamics, categorize, data_map, transition_matrix


def soi(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "soi_lib.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamics")
    rng = np.random.default_rng(0)
    out = []
    for name, shift in (("single", 0.0), ("multi", 0.1)):
        p = np.clip(rng.random((6, 200)) + shift, 0, 1).astype(np.float32)
        dyn = TrainingDynamics(np.arange(200), np.zeros(200, np.int16), p, p > 0.5, {"member": name, "classes": 2})
        dyn.save(folder / f"{name}.parquet")
        out.append(folder / f"{name}.parquet")
    return out


def test_help_teaches():
    top = soi("--help")
    assert top.returncode == 0
    for command in ("fetch", "plan", "run", "reproduce", "categorize", "compare", "map", "book"):
        assert command in top.stdout
        page = soi(command, "--help")
        assert page.returncode == 0
        assert len(page.stdout) > 300
    assert soi().stdout.strip() == top.stdout.strip()  # no command: the same help


def test_categorize(files):
    dyn = TrainingDynamics.load(files[0])
    shown = soi("categorize", files[0])
    assert shown.returncode == 0
    assert "200 examples, 6 epochs" in shown.stdout
    value = json.loads(soi("categorize", files[0], "--json", "--early", "0.3").stdout)
    codes = categorize(dyn, 0.3)
    assert value["soi"] == {s.name: int((codes == s).sum()) for s in SOI}
    assert value["n"] == 200


def test_compare(files):
    value = json.loads(soi("compare", *files, "--json").stdout)
    expected = transition_matrix(*map(TrainingDynamics.load, files))
    assert value == {row: expected.loc[row].to_dict() for row in expected.index}
    assert "FRGE_2" in soi("compare", *files, "--normalize", "row").stdout


def test_compare_has_no_shares_for_a_category_without_examples(files, tmp_path):
    dyn = TrainingDynamics.load(files[0])
    steady = TrainingDynamics(dyn.ids, dyn.gold, np.ones_like(dyn.p_gold), np.ones_like(dyn.correct))
    steady.save(tmp_path / "steady.parquet")
    words = ("compare", tmp_path / "steady.parquet", files[1], "--normalize", "row", "--json")
    shares = json.loads(soi(*words).stdout, parse_constant=pytest.fail)
    assert set(shares["UNE"].values()) == {None}
    assert abs(sum(shares["ACE"].values()) - 1) < 1e-9


def test_map_writes_and_does_not_overwrite(files, tmp_path):
    out = tmp_path / "map.parquet"
    assert soi("map", files[0], "--out", out).returncode == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), data_map(TrainingDynamics.load(files[0])), check_dtype=False)
    again = soi("map", files[0], "--out", out)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert soi("map", files[0], "--out", out, "--force").returncode == 0
    assert soi("map", files[0], "--out", tmp_path / "map.csv").returncode == 0
    assert len(pd.read_csv(tmp_path / "map.csv")) == 200
    picture = tmp_path / "map.png"
    assert soi("map", files[0], "--out", picture).returncode == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    wrong = soi("map", files[0], "--out", tmp_path / "map.xlsx")
    assert wrong.returncode == 2
    assert ".csv, .parquet or .png" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("categorize", "nothing.parquet"), "nothing.parquet"),
        (("plan", "--profile", "quik"), "did you mean 'quick'"),
        (("plan", "--only", "sorce"), "did you mean 'source'"),
        (("run", "zzz"), "no run has this key"),
        (("reproduce", "--profile", "none.yaml"), "none.yaml: no such profile"),
        (("book",), "there is no book here"),
        (("notebooks",), "there is no book here"),
    ],
)
def test_errors_are_one_line_with_the_next_step(words, message, tmp_path, monkeypatch, wheels):
    monkeypatch.chdir(tmp_path)
    done = soi(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error:")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_plan_lists_the_runs_of_the_quick_profile(wheels, tmp_path):
    rows = json.loads(soi("plan", "--json", "--runs", tmp_path).stdout)
    assert len(rows) == 15
    assert len({row["key"] for row in rows}) == 15
    assert {row["state"] for row in rows} == {"to do"}
    assert soi("plan", "--runs", tmp_path, "--only", "source").stdout.count("source") == 4
