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
from commands import command
from own_data import run_main
from synthetic import learn

from paper import ROOT
from soi_lib import SOI, TrainingDynamics, categorize, data_map, transition_matrix
from soi_lib.errors import OutputExistsError
from soi_lib.runs.store import seal

COMMANDS = (
    "fetch", "train", "report", "categorize", "compare", "reliability", "map", "select",
    "label-issues", "doctor",
)  # fmt: skip


def soi(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True)


@pytest.fixture
def here(monkeypatch, capsys):
    """The command in this process: exit code, standard output, standard error."""
    return lambda *words: run_main(monkeypatch, capsys, *words)


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


def test_help_teaches(here):
    top = soi("--help")
    assert top.returncode == 0
    for name in COMMANDS:
        assert name in top.stdout
        code, page, _ = here(name, "--help")
        assert code == 0
        assert len(page) > 300
    assert soi().stdout.strip() == top.stdout.strip()  # no command: the same help


def test_categorize(here, files):
    dyn = TrainingDynamics.load(files[0])
    code, shown, _ = here("categorize", files[0])
    assert code == 0
    assert "200 examples, 6 epochs" in shown
    value = json.loads(here("categorize", files[0], "--json", "--early", "0.3")[1])
    codes = categorize(dyn, 0.3)
    assert value["soi"] == {s.name: int((codes == s).sum()) for s in SOI}
    assert value["n"] == 200


def test_compare(here, files, tmp_path):
    value = json.loads(here("compare", *files, "--json")[1])
    expected = transition_matrix(*map(TrainingDynamics.load, files))
    assert value == {row: expected.loc[row].to_dict() for row in expected.index}
    assert "FRGE_2" in here("compare", *files, "--normalize", "row")[1]

    dyn = TrainingDynamics.load(files[0])  # no shares for a category without examples
    steady = TrainingDynamics(dyn.ids, dyn.gold, np.ones_like(dyn.p_gold), np.ones_like(dyn.correct))
    steady.save(tmp_path / "steady.parquet")
    words = ("compare", tmp_path / "steady.parquet", files[1], "--normalize", "row", "--json")
    shares = json.loads(here(*words)[1], parse_constant=pytest.fail)
    assert set(shares["UNE"].values()) == {None}
    assert abs(sum(shares["ACE"].values()) - 1) < 1e-9


def test_reliability_says_how_many_runs_a_score_needs(here, tmp_path):
    runs = [tmp_path / f"seed{seed}.parquet" for seed in range(4)]
    for seed, path in enumerate(runs):
        learn(200, 4, seed=seed).save(path)
    code, text, _ = here("reliability", *runs)
    assert code == 0
    assert "200 examples, 4 runs, 4 epochs" in text
    assert "Averaged over these 4 runs" in text
    found = json.loads(here("reliability", *runs, "--json")[1], parse_constant=pytest.fail)
    scores = {row["score"]: row for row in found["scores"]}
    assert scores["confidence"]["agreement"] > scores["forgetfulness"]["agreement"]
    assert {row["k"] for row in found["averaged"]} == {1, 2}
    assert here("reliability", runs[0])[0] == 2
    assert "the same run is given twice" in here("reliability", runs[0], runs[0])[2]


def test_map_writes_and_does_not_overwrite(here, files, tmp_path):
    out, picture = tmp_path / "map.parquet", tmp_path / "map.png"
    assert here("map", files[0], "--out", out)[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), data_map(TrainingDynamics.load(files[0])), check_dtype=False)
    code, _, err = here("map", files[0], "--out", out)
    assert (code, "--force" in err) == (2, True)
    assert here("map", files[0], "--out", out, "--force")[0] == 0
    assert here("map", files[0], "--out", tmp_path / "map.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "map.csv")) == 200
    assert here("map", files[0], "--out", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = here("map", files[0], "--out", tmp_path / "map.xlsx")
    assert (code, ".csv, .parquet or .png" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("categorize", "nothing.parquet"), "nothing.parquet"),
        (("plan", "--profile", "quik"), "did you mean 'quick'"),
        (("run", "zzz"), "no run has this key"),
        (("reproduce", "--profile", "none.yaml"), "none.yaml: no such profile"),
        (("book",), "there is no book here"),
    ],
)
def test_errors_are_one_line_with_the_next_step(here, words, message, tmp_path, monkeypatch, wheels):
    monkeypatch.chdir(tmp_path)
    code, _, err = here(*words)
    assert code == 2
    assert message in err
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_plan_lists_the_runs_of_the_quick_profile(here, wheels, tmp_path):
    rows = json.loads(here("plan", "--json", "--runs", tmp_path)[1])
    assert len(rows) == 15
    assert len({row["key"] for row in rows}) == 15
    assert {row["state"] for row in rows} == {"to do"}
    for row in rows:  # what a program needs that does the runs elsewhere
        assert (row["kind"], row["base"], row["stage"]) == ("run", None, "")
        assert set(row["inputs"]) == {"encoder", *(f"corpus/{member}" for member in row["setting"].split("+"))}
    assert here("plan", "--runs", tmp_path, "--only", "source")[1].count("source") == 4


def test_plan_lists_stages_when_asked(here, wheels, tmp_path):
    profile = tmp_path / "staged.yaml"
    profile.write_text((ROOT / "paper" / "profiles" / "quick.yaml").read_text() + "stages: {epochs: 2}\n")
    words = ("plan", "--profile", profile, "--runs", tmp_path, "--only", "source", "--json")
    runs = json.loads(here(*words)[1])
    rows = json.loads(here(*words, "--stages")[1])
    assert rows[: len(runs)] == runs
    stages = rows[len(runs) :]
    assert len({row["key"] for row in rows}) == len(rows) > len(runs)
    assert {row["kind"] for row in stages} == {"stage"}
    assert {row["base"] for row in stages} == {row["key"] for row in runs}


def test_results_of_runs_that_are_not_done_are_refused(here, wheels, tmp_path):
    code, _, told = here("results", "--runs", tmp_path, "--only", "source", "--out", tmp_path / "results.json")
    assert code == 2
    assert "4 of 4 runs are not done, the first is source tweets seed 0" in told
    assert not (tmp_path / "results.json").exists()


def test_plan_says_about_how_long(here, wheels, tmp_path, monkeypatch):
    words = ("plan", "--runs", tmp_path, "--only", "source")
    monkeypatch.setenv("COLUMNS", "72")
    _, shown, told = here(*words)
    assert all(row["key"] in shown for row in json.loads(here(*words, "--json")[1]))  # whole, to be copied
    assert "minutes" in shown
    assert re.match(r"to do: about \d+ minutes? of one core", told)
    assert here(*words, "--quiet")[2] == ""
    _, _, told = here(*words, "--device", "cuda", "--precision", "bf16")  # planned here for a machine that has one
    assert told.rstrip().endswith("how long a GPU takes has not been measured")


def test_a_book_on_a_gpu_that_is_not_there_is_refused_before_anything_is_done(here, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("paper.build.notebooks", lambda root: pytest.fail("the book was begun"))
    monkeypatch.chdir(ROOT)
    code, shown, told = here("book", "--device", "cuda")
    assert (code, shown) == (2, "")
    assert re.fullmatch(r"error: --device cuda: .*found no GPU.* Next: use --device cpu, or see `soi doctor`.*\n", told)


# --- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("categorise", "x"), "no such command 'categorise'. Did you mean 'categorize'? Next: `soi --help` explains"),
        (
            ("plan", "--jsn"),
            "python -m paper plan: no such option: --jsn (Possible options: --json). Next: `python -m paper plan --h",
        ),
        (("categorize",), "soi categorize: missing argument 'FILE'. Next:"),
        (("categorize", "x", "--early", "soon"), "invalid value for '--early': "),
        (("select", "x", "--control", "all"), "invalid value for '--control': 'all' is not one of 'random'"),
    ],
)
def test_wrong_words_are_one_line_too(here, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = here(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_interruption_is_130_with_a_line(here, monkeypatch, files):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingDynamics, "load", interrupted)
    code, out, err = here("categorize", files[0])
    assert (code, out, err) == (130, "", "interrupted; the same command continues\n")


def test_every_command_that_reads_prints_json_and_nothing_else(here, files, tmp_path, wheels):
    for words in (
        ("categorize", files[0]),
        ("compare", *files),
        ("map", files[0]),
        ("map", files[0], "--out", tmp_path / "m.csv"),
        ("select", files[0], "FRGE_2"),
        ("select", files[0], "FRGE_2", "--out", tmp_path / "ids.txt", "--quiet"),
        ("label-issues", files[0]),
        ("label-issues", files[0], "--out", tmp_path / "s.csv", "--quiet"),
        ("plan", "--runs", tmp_path / "runs", "--only", "source"),
        ("doctor",),
    ):
        code, out, err = here(*words, "--json")
        assert (code, err) == (0, ""), words
        json.loads(out, parse_constant=pytest.fail)


def test_the_map_as_json_is_the_map(here, files):
    told = json.loads(here("map", files[0], "--json")[1])
    expected = data_map(TrainingDynamics.load(files[0]))
    assert [row["id"] for row in told["examples"]] == expected["id"].tolist()
    assert [row["confidence"] for row in told["examples"]] == expected["confidence"].tolist()
    assert [SOI[row["soi"]] for row in told["examples"]] == expected["soi"].tolist()
    assert "give --out map.png, or --json" in here("map", files[0])[2]


def test_categories_have_one_spelling(here, files):
    shown = here("categorize", files[0])[1]
    for code, name in (
        ("UNE", "unlearned"), ("ACE", "always correct"), ("ELE", "early learned"), ("LLE", "late learned"),
        ("FRGE_1", "forgotten once"), ("FRGE_2", "forgotten at least twice"),
    ):  # fmt: skip
        (line,) = [line for line in shown.splitlines() if line.startswith(code)]
        assert name in line
    assert "FRGE_2" in here("compare", *files)[1]


def test_predictions_are_told_apart_from_dynamics(here, tmp_path, files):
    for name in ("dynamics", "predictions"):
        (tmp_path / name).mkdir()
    beside = tmp_path / "dynamics" / "mine.parquet"
    beside.write_bytes(files[0].read_bytes())
    path = tmp_path / "predictions" / "mine.parquet"
    pd.DataFrame({"split": ["test"], "id": ["a"], "gold": [0], "predicted": [1], "p_gold": [0.2]}).to_parquet(path)
    for words in (("categorize", path), ("compare", path, path), ("map", path, "--json"), ("label-issues", path)):
        code, _, err = here(*words)
        assert code == 2
        assert f"these are predictions at the end of a run, not dynamics. Next: give {beside}" in err
    beside.unlink()
    assert "give a file of the folder `dynamics` of a run" in here("categorize", path)[2]
    pd.DataFrame({"id": ["a"]}).to_parquet(path)
    assert "another program's Parquet file" in here("categorize", path)[2]


def test_python_is_told_of_overwrite_and_the_command_line_of_force(here, files, tmp_path):
    dyn = TrainingDynamics.load(files[0])
    with pytest.raises(OutputExistsError, match="pass overwrite=True to replace it"):
        dyn.save(files[0])
    (tmp_path / "map.csv").write_text("mine")
    err = here("map", files[0], "--out", tmp_path / "map.csv")[2]
    assert "pass --force to replace it" in err
    assert "overwrite" not in err


def test_quiet_turns_off_every_bar_and_only_while_the_command_runs(here, files, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    seen = []
    load = TrainingDynamics.load
    monkeypatch.setattr(
        TrainingDynamics, "load", lambda path: (seen.append(os.environ.get("TQDM_DISABLE")), load(path))[1]
    )
    assert here("label-issues", files[0], "--quiet")[0] == 0
    assert here("label-issues", files[0])[0] == 0
    assert seen == ["1", None]
    assert "TQDM_DISABLE" not in os.environ


@pytest.mark.parametrize("no_color", [False, True])
def test_colour_only_on_a_terminal_that_wants_it(no_color):
    import pty

    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "GITHUB_ACTIONS")}
    environment = clean | {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {})
    screen, end = pty.openpty()
    command = [sys.executable, "-m", "soi_lib.cli", "categorize", "none.parquet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, env=environment)
    os.close(end)
    told = os.read(screen, 10_000).decode()
    os.close(screen)
    assert done.returncode == 2
    assert "none.parquet" in told
    assert ("\x1b[1;31m" in told) is not no_color
    plain = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "\x1b" not in plain.stderr


def test_the_old_name_of_a_command_works_and_says_the_new_one(here, files):
    old, new = here("suspects", files[0]), here("label-issues", files[0])
    assert old[:2] == new[:2]
    assert "`soi label-issues`" in old[2]
    assert "suspects" not in here("--help")[1]


def test_completion_is_there():
    environment = os.environ | {"_SOI_COMPLETE": "complete_bash", "COMP_WORDS": "soi lab", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['soi']; from soi_lib.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["label-issues"]
    assert "--install-completion" in soi("--help").stdout


def test_a_run_of_soi_train_is_found_in_its_folder(here, files, tmp_path):
    for key in ("aaa", "bbb"):
        folder = tmp_path / "out" / "runs" / key
        (folder / "dynamics").mkdir(parents=True)
        (folder / "dynamics" / "mine.parquet").write_bytes(files[0].read_bytes())
        seal(folder, {"key": key})
        if key == "aaa":
            told = json.loads(here("label-issues", tmp_path / "out", "--json")[1])
            assert told["file"] == str(folder / "dynamics" / "mine.parquet")
    code, _, err = here("label-issues", tmp_path / "out")
    assert code == 2
    assert f"there are several runs here; found 2. Next: give one: {tmp_path}/out/runs/aaa" in err
    (tmp_path / "out" / "runs" / "aaa" / "dynamics" / "mine.parquet").write_bytes(files[1].read_bytes())
    assert (
        "a file of the run is not the one that was written"
        in here("label-issues", tmp_path / "out" / "runs" / "aaa")[2]
    )
