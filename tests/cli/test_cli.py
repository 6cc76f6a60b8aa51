"""The commands that read: help, tables, JSON, the findings of `soi doctor`, and errors that write nothing."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from own_data import csv, snapshot
from synthetic import learn
from test_dynamics import forge

from paper import ROOT
from soi_lib import SOI, TrainingDynamics, categorize, data_map, transition_matrix
from soi_lib import files as library_files
from soi_lib.cli import app
from soi_lib.cli.doctor import examine
from soi_lib.files import cache_dir
from soi_lib.packages import read_list
from soi_lib.runs.store import seal
from soi_lib.training import device as devices


@pytest.fixture(scope="module")
def place(tmp_path_factory, wheels):
    """Files that the commands may only read."""
    folder = tmp_path_factory.mktemp("commands")
    for seed, name in enumerate(("a", "b", "c", "d")):
        learn(300, 6, seed=seed).save(folder / f"{name}.parquet")
    dyn = learn(300, 6)
    strangers = np.array([f"other-{i}" for i in range(300)], dtype=object)
    TrainingDynamics(strangers, dyn.gold, dyn.p_gold, dyn.correct, dyn.meta).save(folder / "strangers.parquet")
    csv(folder / "mine.csv", pd.DataFrame({"id": dyn.ids, "text": "a text"}))
    (folder / "folder.csv").mkdir()
    return folder


@pytest.fixture(scope="module")
def files(place):
    return place / "a.parquet", place / "b.parquet"


def test_help_teaches(soi, ended):
    top, _ = soi("--help")
    assert ended()[1].strip() == top.strip()  # no command: the same help
    assert "--install-completion" in top
    for name in typer.main.get_command(app).commands:
        assert f"│ {name} " in top
        assert len(soi(name, "--help")[0]) > 300


def test_categorize(soi, files):
    shown, _ = soi("categorize", files[0])
    assert "300 examples, 6 epochs" in shown
    value = json.loads(soi("categorize", files[0], "--json", "--early", "0.3")[0])
    codes = categorize(TrainingDynamics.load(files[0]), 0.3)
    assert value["soi"] == {s.name: int((codes == s).sum()) for s in SOI}


def test_compare(soi, files, tmp_path):
    value = json.loads(soi("compare", *files, "--json")[0])
    expected = transition_matrix(*map(TrainingDynamics.load, files))
    assert value == {row: expected.loc[row].to_dict() for row in expected.index}
    dyn = TrainingDynamics.load(files[0])  # no shares for a category without examples
    steady = TrainingDynamics(dyn.ids, dyn.gold, np.ones_like(dyn.p_gold), np.ones_like(dyn.correct))
    steady.save(tmp_path / "steady.parquet")
    words = ("compare", tmp_path / "steady.parquet", files[1], "--normalize", "row", "--json")
    shares = json.loads(soi(*words)[0], parse_constant=pytest.fail)
    assert set(shares["UNE"].values()) == {None}
    assert abs(sum(shares["ACE"].values()) - 1) < 1e-9


def test_reliability_says_how_many_runs_a_score_needs(soi, place):
    runs = [place / f"{name}.parquet" for name in "abcd"]
    text, _ = soi("reliability", *runs)
    assert "300 examples, 4 runs, 6 epochs" in text
    assert "Averaged over these 4 runs" in text
    found = json.loads(soi("reliability", *runs, "--json")[0], parse_constant=pytest.fail)
    scores = {row["score"]: row for row in found["scores"]}
    assert scores["confidence"]["agreement"] > scores["forgetfulness"]["agreement"]
    assert {row["k"] for row in found["averaged"]} == {1, 2}


def test_map_writes_a_table_or_a_picture_and_replaces_files_only_with_force(soi, refused, files, tmp_path):
    out, picture = tmp_path / "map.parquet", tmp_path / "map.png"
    soi("map", files[0], "--out", out)
    expected = data_map(TrainingDynamics.load(files[0]))
    expected["soi"] = [SOI(code).name for code in expected["soi"]]
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected, check_dtype=False)
    refused("--force", "map", files[0], "--out", out)
    soi("map", files[0], "--out", out, "--force")
    soi("map", files[0], "--out", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    out, err = soi("map", files[0], "--json")
    assert (len(json.loads(out, parse_constant=pytest.fail)) > 0, err) == (True, "")


def test_colour_only_on_a_terminal():
    import pty

    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "GITHUB_ACTIONS")}
    words = [sys.executable, "-m", "soi_lib.cli", "categorize", "none.parquet"]
    screen, end = pty.openpty()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=end, env=clean | {"TERM": "xterm-256color"})
    os.close(end)
    shown = os.read(screen, 10_000).decode()
    os.close(screen)
    assert (done.returncode, "none.parquet" in shown, "\x1b[1;31m" in shown) == (2, True, True)
    assert "\x1b" not in subprocess.run(words, capture_output=True, text=True, env=clean).stderr


def test_a_missing_device_is_reported_before_the_book_begins(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("paper.build.notebooks", lambda root: pytest.fail("the book was begun"))
    monkeypatch.chdir(ROOT)
    refused("device cuda", "book", "--device", "cuda")


def test_plan_lists_runs_and_stages(soi, tmp_path, monkeypatch):
    profile = tmp_path / "staged.yaml"
    profile.write_text((ROOT / "paper" / "profiles" / "quick.yaml").read_text() + "stages: {epochs: 2}\n")
    words = ("plan", "--profile", profile, "--runs", tmp_path / "runs", "--only", "source")
    runs = json.loads(soi(*words, "--json")[0])
    for row in runs:  # what a program needs to train the runs elsewhere
        assert (row["kind"], row["base"], row["stage"], row["state"]) == ("run", None, "", "to do")
        assert set(row["inputs"]) == {"encoder", *(f"corpus/{member}" for member in row["setting"].split("+"))}
    rows = json.loads(soi(*words, "--json", "--stages")[0])
    stages = rows[len(runs) :]
    assert rows[: len(runs)] == runs
    assert len({row["key"] for row in rows}) == len(rows) > len(runs) == 5
    assert {row["kind"] for row in stages} == {"stage"}
    assert {row["base"] for row in stages} == {row["key"] for row in runs if row["budget"] == "full"}
    monkeypatch.setenv("COLUMNS", "72")
    out, err = soi(*words)
    assert all(row["key"] in out for row in runs)  # not cut off, so that they can be copied
    assert re.search(r"about \d+ minutes?", err)


# --- what cannot be done ----------------------------------------------------------------------------------------------


def rejected(refused, place, words, message: str) -> None:
    """Expect one line on standard error, exit code 2, and every file unchanged."""
    before = snapshot(place)
    refused(message, *words)
    assert snapshot(place) == before
    assert not list(place.rglob(f"{library_files.PREFIX}*"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("categorise", "x"), "Did you mean 'categorize'"),
        (("categorize",), "'FILE'"),
        (("categorize", "nothing.parquet"), "nothing.parquet"),
        (("categorize", "folder.csv"), r"folder\.csv"),
        (("compare", "a.parquet", "strangers.parquet"), r"no id in common"),
        (("reliability", "a.parquet", "a.parquet"), "the same seed"),
        (("map", "a.parquet", "--out", "folder.csv", "--force"), r"folder\.csv"),
        (("map", "a.parquet", "--out", "map.xlsx"), "or .png"),
        (("select", "a.parquet", "UNE", "--control", "all"), "'random'"),
        (("label-issues", "a.parquet", "--out", "/proc/soi.csv"), r"/proc/soi\.csv"),  # not even root can write there
        (("train", "--dataset", "../out=mine.csv", "--out", "new"), r"\.\./out"),
        (("plan", "--jsn"), "--json"),
        (("plan", "--profile", "quik"), "'quick'"),
        (("plan", "--only", "sorce"), "'source'"),
        (("run", "zzz"), "zzz"),
        (("results", "--only", "source", "--out", "results.json"), "source tweets seed 0"),
        (("book",), "book"),
    ],
)
def test_mistakes_are_named_in_one_line(refused, place, words, named):
    rejected(refused, place, words, named)


def test_predictions_are_not_taken_for_dynamics(refused, files, tmp_path):
    for name in ("dynamics", "predictions"):
        (tmp_path / name).mkdir()
    beside = tmp_path / "dynamics" / "mine.parquet"
    beside.write_bytes(files[0].read_bytes())
    path = tmp_path / "predictions" / "mine.parquet"
    pd.DataFrame({"split": ["test"], "id": ["a"], "gold": [0], "predicted": [1], "p_gold": [0.2]}).to_parquet(path)
    rejected(refused, tmp_path, ("categorize", path), re.escape(str(beside)))


def test_another_schema_version(refused, tmp_path):
    """In a file, and in a complete, sealed run that a later version of the library wrote."""
    run = tmp_path / "run"
    (run / "dynamics").mkdir(parents=True)
    path = forge(run / "dynamics" / "new.parquet", schema=2)
    seal(run, {"key": "a"})
    for words in (("categorize", path), ("select", run, "UNE"), ("report", path, "--out", tmp_path / "r.html")):
        rejected(refused, tmp_path, words, r"new\.parquet: .*found 2, expected 1")


@pytest.mark.parametrize(
    "words",
    [
        ("map", "a.parquet", "--out", "new.csv"),
        ("select", "a.parquet", "FRGE_1", "ACE", "--from", "mine.csv", "--out", "new.csv"),
        ("report", "a.parquet", "--out", "new.html"),
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_leaves_everything_as_it_was(refused, place, words, small_files):
    small_files(500)
    rejected(refused, place, words, r"could not write; found ")


@pytest.mark.parametrize("command", ["map", "report"])
def test_an_interruption_while_writing_loses_nothing(ended, place, monkeypatch, command):
    """Ctrl-C after the bytes are written, before they replace the old file."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = snapshot(place)
    with monkeypatch.context() as patch:
        patch.setattr(library_files.os, "fsync", interrupt)
        code, out, err = ended(command, "a.parquet", "--out", "mine.csv", "--force")
    assert (code, out) == (130, "")
    assert err.endswith("interrupted; run the same command again to continue\n")
    assert snapshot(place) == before


def test_no_problems_here(soi, wheels, tmp_path):
    out, err = soi("doctor", "--json", "--runs", tmp_path / "runs")
    found = json.loads(out)
    assert (err, found["problems"]) == ("", [])
    for purpose, name in (("training", "torch"), ("the core", "numpy"), ("figures and the book", "plotly")):
        assert found["packages"][purpose][name] == importlib.metadata.version(name)
    assert found["would train on"]["device"] == "cpu"
    assert found["cache"]["folder"] == str(cache_dir())
    assert found["data and weights"] == {p.name: "verified" for p in read_list()}
    assert not (tmp_path / "runs").exists()
    assert soi("doctor")[0].strip().endswith("no problems found")


def test_an_empty_cache_is_a_problem_and_stays_empty(ended, tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    code, out, _ = ended("doctor", "--json")
    found = json.loads(out)
    assert code == 2
    assert set(found["data and weights"].values()) == {"missing"}
    (problem,) = found["problems"]
    assert problem.endswith("Next: `soi fetch`")
    assert found["variables"]["SOI_CACHE"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def two_cards(monkeypatch, tmp_path):
    """A program `nvidia-smi` that lists two cards, and no device files."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "glob", lambda pattern: [])
    cards = "NVIDIA A100-SXM4-80GB, 81920 MiB, 580.65.06\nTesla T4, 15360 MiB, 580.65.06"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{cards}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_cpu_build_of_torch_on_a_machine_with_a_gpu_is_a_note_with_the_remedy(soi, wheels, two_cards, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    shown = " ".join(soi("doctor")[0].split())
    assert "NVIDIA A100-SXM4-80GB, 81920 MiB, driver 580.65.06, torch cannot use it, Tesla T4, 15360 MiB" in shown
    assert "note: torch cannot use NVIDIA A100-SXM4-80GB: torch 2.13.0+cpu is built for CPUs only." in shown
    assert "`pip uninstall torch`, then `pip install torch==2.13.0`" in shown


def test_a_gpu_that_torch_can_use(wheels, two_cards, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    card = type("Card", (), {"total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.delenv("SOI_JOBS", raising=False)
    monkeypatch.setenv("SOI_DEVICE", "cuda:1")
    found = examine()
    assert list(found["would train on"].values()) == ["cuda:1", "NVIDIA A100-SXM4-80GB", "bf16", 4]
    assert found["GPUs"][1] == "Tesla T4, 15360 MiB, driver 580.65.06, torch can use 2 (CUDA 13.0)"
    assert found["notes"] == []


def test_a_missing_device_is_a_problem(monkeypatch):
    monkeypatch.setenv("SOI_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = examine()
    assert found["would train on"] == {}
    assert any(line.startswith("device cuda: this device is not available") for line in found["problems"])
