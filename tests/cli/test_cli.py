"""The command line as a person meets it: help, tables, JSON, one-line errors with exit code 2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from synthetic import learn

from paper import ROOT
from soi_lib import SOI, TrainingDynamics, categorize, data_map, transition_matrix

COMMANDS = (
    "train", "report", "second-stage", "predict", "categorize", "compare", "reliability", "map", "select",
    "label-issues", "doctor", "fetch",
)  # fmt: skip


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


def test_help_teaches(soi):
    code, top, _ = soi("--help")
    assert code == 0
    assert soi()[1].strip() == top.strip()  # no command: the same help
    assert "--install-completion" in top
    places = [top.index(f"│ {name} ") for name in COMMANDS]
    assert places == sorted(places)
    for name in COMMANDS:
        code, page, _ = soi(name, "--help")
        assert (code, len(page) > 300) == (0, True)


def test_categorize(soi, files):
    dyn = TrainingDynamics.load(files[0])
    code, shown, _ = soi("categorize", files[0])
    assert code == 0
    assert "200 examples, 6 epochs" in shown
    value = json.loads(soi("categorize", files[0], "--json", "--early", "0.3")[1])
    codes = categorize(dyn, 0.3)
    assert value["soi"] == {s.name: int((codes == s).sum()) for s in SOI}
    assert value["n"] == 200


def test_compare(soi, files, tmp_path):
    value = json.loads(soi("compare", *files, "--json")[1])
    expected = transition_matrix(*map(TrainingDynamics.load, files))
    assert value == {row: expected.loc[row].to_dict() for row in expected.index}
    dyn = TrainingDynamics.load(files[0])  # no shares for a category without examples
    steady = TrainingDynamics(dyn.ids, dyn.gold, np.ones_like(dyn.p_gold), np.ones_like(dyn.correct))
    steady.save(tmp_path / "steady.parquet")
    words = ("compare", tmp_path / "steady.parquet", files[1], "--normalize", "row", "--json")
    shares = json.loads(soi(*words)[1], parse_constant=pytest.fail)
    assert set(shares["UNE"].values()) == {None}
    assert abs(sum(shares["ACE"].values()) - 1) < 1e-9


def test_reliability_says_how_many_runs_a_score_needs(soi, tmp_path):
    runs = [tmp_path / f"seed{seed}.parquet" for seed in range(4)]
    for seed, path in enumerate(runs):
        learn(200, 4, seed=seed).save(path)
    code, text, _ = soi("reliability", *runs)
    assert code == 0
    assert "200 examples, 4 runs, 4 epochs" in text
    assert "Averaged over these 4 runs" in text
    found = json.loads(soi("reliability", *runs, "--json")[1], parse_constant=pytest.fail)
    scores = {row["score"]: row for row in found["scores"]}
    assert scores["confidence"]["agreement"] > scores["forgetfulness"]["agreement"]
    assert {row["k"] for row in found["averaged"]} == {1, 2}
    assert soi("reliability", runs[0], runs[0])[0] == 2


def test_map_writes_and_does_not_overwrite(soi, files, tmp_path):
    out, picture = tmp_path / "map.parquet", tmp_path / "map.png"
    assert soi("map", files[0], "--out", out)[0] == 0
    expected = data_map(TrainingDynamics.load(files[0]))
    expected["soi"] = [SOI(code).name for code in expected["soi"]]
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected, check_dtype=False)
    code, _, err = soi("map", files[0], "--out", out)
    assert (code, "--force" in err) == (2, True)
    assert soi("map", files[0], "--out", out, "--force")[0] == 0
    assert soi("map", files[0], "--out", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = soi("map", files[0], "--out", tmp_path / "map.xlsx")
    assert (code, "or .png" in err) == (2, True)


# --- manners ----------------------------------------------------------------------------------------------------------


def test_every_command_that_reads_prints_json_and_nothing_else(soi, files, tmp_path, wheels):
    for words in (
        ("categorize", files[0]),
        ("compare", *files),
        ("map", files[0]),
        ("select", files[0], "FRGE_2"),
        ("label-issues", files[0]),
        ("plan", "--runs", tmp_path / "runs", "--only", "source"),
        ("doctor",),
    ):
        code, out, err = soi(*words, "--json")
        assert (code, err) == (0, ""), words
        json.loads(out, parse_constant=pytest.fail)


def test_colour_only_on_a_terminal():
    import pty

    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "GITHUB_ACTIONS")}
    words = [sys.executable, "-m", "soi_lib.cli", "categorize", "none.parquet"]
    screen, end = pty.openpty()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=end, env=clean | {"TERM": "xterm-256color"})
    os.close(end)
    told = os.read(screen, 10_000).decode()
    os.close(screen)
    assert (done.returncode, "none.parquet" in told, "\x1b[1;31m" in told) == (2, True, True)
    assert "\x1b" not in subprocess.run(words, capture_output=True, text=True, env=clean).stderr


def test_completion_is_there():
    environment = os.environ | {"_SOI_COMPLETE": "complete_bash", "COMP_WORDS": "soi lab", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['soi']; from soi_lib.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["label-issues"]


def test_a_device_that_is_not_there_ends_the_book_before_it_begins(soi, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("paper.build.notebooks", lambda root: pytest.fail("the book was begun"))
    monkeypatch.chdir(ROOT)
    code, shown, told = soi("book", "--device", "cuda")
    assert (code, shown, "device cuda" in told) == (2, "", True)


def test_plan_lists_runs_and_stages(soi, wheels, tmp_path, monkeypatch):
    profile = tmp_path / "staged.yaml"
    profile.write_text((ROOT / "paper" / "profiles" / "quick.yaml").read_text() + "stages: {epochs: 2}\n")
    words = ("plan", "--profile", profile, "--runs", tmp_path / "runs", "--only", "source")
    runs = json.loads(soi(*words, "--json")[1])
    for row in runs:  # what a program needs that does the runs elsewhere
        assert (row["kind"], row["base"], row["stage"], row["state"]) == ("run", None, "", "to do")
        assert set(row["inputs"]) == {"encoder", *(f"corpus/{member}" for member in row["setting"].split("+"))}
    rows = json.loads(soi(*words, "--json", "--stages")[1])
    stages = rows[len(runs) :]
    assert rows[: len(runs)] == runs
    assert len({row["key"] for row in rows}) == len(rows) > len(runs) == 5
    assert {row["kind"] for row in stages} == {"stage"}
    assert {row["base"] for row in stages} == {row["key"] for row in runs if row["budget"] == "full"}
    monkeypatch.setenv("COLUMNS", "72")
    _, shown, told = soi(*words)
    assert all(row["key"] in shown for row in runs)  # whole, to be copied
    assert re.search(r"about \d+ minutes?", told)


def test_predictions_are_told_apart_from_dynamics(soi, tmp_path, files):
    for name in ("dynamics", "predictions"):
        (tmp_path / name).mkdir()
    beside = tmp_path / "dynamics" / "mine.parquet"
    beside.write_bytes(files[0].read_bytes())
    path = tmp_path / "predictions" / "mine.parquet"
    pd.DataFrame({"split": ["test"], "id": ["a"], "gold": [0], "predicted": [1], "p_gold": [0.2]}).to_parquet(path)
    code, _, err = soi("categorize", path)
    assert (code, str(beside) in err) == (2, True)
