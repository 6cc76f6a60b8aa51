"""`soi train` as a person meets it: the preview, refusals that write nothing, interruptions that lose nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pandas as pd
import pytest
from authors_data import tiny_bert
from own_data import csv, rows, snapshot

from soi_lib.cli import training
from soi_lib.data.places import DatasetSpec
from soi_lib.runs import own
from soi_lib.runs.run import do_run
from soi_lib.runs.store import RunStore


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A cache of its own, a tiny model, and files."""
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_CACHE", str(folder / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setenv("SOI_JOBS", "1")
        tiny_bert(folder / "tiny")
        csv(folder / "good.csv", rows(64, labels=("no", "yes")))
        csv(folder / "long.csv", rows(600, labels=("no", "yes")))
        yield folder


GOOD = ("train", "--train", "good.csv", "--model", "tiny", "--epochs", 30)
LONG = ("train", "--train", "long.csv", "--model", "tiny", "--epochs", 60)  # seconds: a signal comes before its end


def test_the_preview_says_everything_before_training(soi, place):
    before = snapshot(place)
    code, out, err = soi(*GOOD, "--out", "new", "--dry-run")
    assert code == 0
    assert out == ""
    for line in (
        'text column: "text" (guessed; give --text to choose)',
        'label column: "sentiment" (guessed; give --label to choose)',
        "ids: row numbers from 0 (give --id to choose a column)",
        "no test rows: 14 of 64 rows (22%) are held out for testing",
        "good.csv: 64 rows read, 64 used",
        "1 run of 30 epochs with tiny, seed 0; under a minute",
        "yes 25, no 25",
        "memory: up to 0.0 GB a run for its parameters",
        "nothing was written (--dry-run)",
    ):
        assert line in " ".join(err.split()), line
    assert {k: v for k, v in snapshot(place).items() if "cache" not in k} == {
        k: v for k, v in before.items() if "cache" not in k
    }
    assert soi(*GOOD, "--out", "new", "--dry-run", "--quiet") == (0, "", "nothing was written (--dry-run)\n")


def test_several_members_and_what_belongs_to_which(soi, place):
    csv(place / "other.csv", rows(20, member="yelp").rename(columns={"text": "body"}))
    csv(place / "else where.csv", rows(10, start=900, labels=("no", "yes")).rename(columns={"text": "body"}))
    words = (
        *GOOD,
        "--member",
        "o=other.csv",
        "--text",
        "o=body",
        "--seed",
        0,
        "--seed",
        1,
        "--dry-run",
        "--out",
        "new",
    )
    code, _, err = soi(*words)
    assert code == 0
    assert 'good: text column: "text" (guessed' in err
    assert 'o: text column: "body" (as given)' in err
    assert "6 runs of 30 epochs" in " ".join(err.split())
    assert "share a head" not in err  # other label names
    for extra, message in (
        (("--test", "else where.csv"), "--test: with several members it must be said whose rows these are"),
        (("--text", "body"), "--text: this is given twice"),
        (("--member", "o=good.csv"), "two members have one name; found 'o'"),
        (("--member", "good.csv"), "a member needs a name; found 'good.csv', expected NAME=FILE"),
        (("--drop", "duplicate"), "'duplicates'"),
        (
            ("--ood", "o=else where.csv"),
            "rows with labels that the training data do not contain ('no', 'yes'); found 10: row 1 ",
        ),
    ):
        code, _, err = soi(*words, *extra)
        assert (code, message in err) == (2, True), err


def test_the_comparison_that_is_offered_is_of_one_seed(capsys, place):
    runs = [(["a"], 0), (["a"], 1), (["b"], 0), (["b"], 1), (["a", "b"], 0), (["a", "b"], 1)]
    rows = [
        {"seed": seed, "dynamics": {m: f"runs/{'-'.join(setting)}-{seed}/{m}.parquet" for m in setting}}
        for setting, seed in runs
    ]
    training._next(place, {"members": ["a", "b"], "runs": rows})
    said = capsys.readouterr().err
    assert f"soi compare {place}/runs/a-0/a.parquet {place}/runs/a-b-0/a.parquet" in said
    assert "both of seed 0" in said


def write(path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


MANY = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
BAD = {
    "no column for the text": (f"words,label\n{MANY}", (), r"no column looks like the text; found words, label"),
    "a named column is missing": (f"text,label\n{MANY}", ("--label", "lable"), r"did you mean 'label'"),
    "a column stands twice": (
        "text,label,label\n" + "".join(f"t{i},a,b\n" for i in range(20)),
        (),
        r"the column 'label' appears twice",
    ),
    "no text": (f"text,label\n{MANY},a\n", (), r"bad.csv: rows without text; found 1: row 21 .line 22.*--drop empty"),
    "no label": (f"text,label\n{MANY}a text,\n", (), r"bad.csv: rows without label; found 1: row 21 "),
    "one class": ("text,label\n" + "".join(f"t{i},a\n" for i in range(20)), (), r"all rows have the same label"),
    "two examples": ("text,label\na,0\nb,1\n", (), r"too few rows to train on; found 2, expected at least 10"),
    "a label a row": (
        "text,label\n" + "".join(f"t{i},{i}\n" for i in range(20)),
        (),
        r"nearly as many values as rows.*found 20 values in 20 rows.*--label",
    ),
    "one epoch": (f"text,label\n{MANY}", ("--epochs", 1), r"dynamics need at least two epochs; found 1"),
    "65 epochs": (f"text,label\n{MANY}", ("--epochs", 65), r"at most 64 epochs; found 65"),
    "latin-1": (b"text,label\ncaf\xe9,a\n", (), r"bad.csv line 2: the file is not UTF-8; found byte 0xe9.*--encoding"),
    "a header only": ("text,label\n", (), r"bad.csv: there are no rows; found a header only"),
    "an empty file": ("", (), r"bad.csv: there are no rows; found an empty file"),
    "a broken row": (
        "text,label\na,b\nc\n",
        (),
        r"bad.csv: rows do not have as many fields as the header; found 1 in line 3, expected 2",
    ),
    "ids that repeat": (
        "id,text,label\n" + "".join(f"{i // 2},t{i},{'ab'[i % 2]}\n" for i in range(20)),
        ("--id", "id"),
        r"the id '0' is used twice; found it in row 1 ",
    ),
    "text and label in one": (
        f"text,label\n{MANY}",
        ("--text", "label", "--label", "label"),
        r"one column cannot be two things",
    ),
    "no such file": ("", ("--test", "absent.csv"), r"absent.csv: no such file"),
    "a directory as a file": (f"text,label\n{MANY}", ("--test", "tiny"), r"tiny: this is a directory; expected a file"),
    "an unknown kind of file": ("", ("--test", "tiny/model.safetensors"), r"unknown kind of file; found .safetensors"),
    "a label unknown to training": (
        f"text,label\n{MANY}",
        ("--test", "good.csv", "--label", "label"),
        r"the test rows lack a column of the training rows; found text, sentiment, expected 'label'",
    ),
    "a model that is none": (f"text,label\n{MANY}", ("--model", "cache"), r"the encoder has no config.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(soi, place, name):

    content, words, message = BAD[name]
    write(place / "bad.csv", content)
    before = {k for k in snapshot(place) if "cache" not in k}
    code, out, err = soi("train", "--train", "bad.csv", "--out", "never", "--model", "tiny", *words)
    assert (code, out) == (2, "")
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err
    assert {k for k in snapshot(place) if "cache" not in k} == before
    assert not (place / "never").exists()


def test_nothing_to_train_on_is_named(soi):
    code, _, err = soi("train", "--out", "never")
    assert (code, "--train FILE, or --member NAME=FILE" in err) == (2, True)
    code, _, err = soi("train", "--train", "absent.csv", "--out", "never", "--model", "tiny")
    assert (code, "absent.csv: no such file" in err) == (2, True)


@pytest.mark.parametrize("phase", ["reading", "preview", "profile", "index"])
def test_an_interrupt_at_any_point_ends_with_130(soi, place, monkeypatch, phase, tmp_path):
    """Where Ctrl-C strikes Python raises KeyboardInterrupt; here at a chosen place."""
    from soi_lib.cli import training

    def strike(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wrote = own._write
    with monkeypatch.context() as patch:
        if phase == "reading":
            patch.setattr(own, "load_dataset", strike)
        elif phase == "preview":
            patch.setattr(training, "_preview", strike)
        else:
            last = own.INDEX if phase == "index" else own.PROFILE
            patch.setattr(own, "_write", lambda p, data: strike() if p.name == last else wrote(p, data))
        code, _, err = soi(*GOOD, "--out", tmp_path / "run")
    assert code == 130
    assert "interrupted; the same command continues" in err
    assert (tmp_path / "run").exists() == (phase == "index")
    code, _, err = soi(*GOOD, "--out", tmp_path / "run", "--dry-run")  # the same again is not refused
    assert code == 0


def until(process: subprocess.Popen[bytes], log, word: str, seconds: float = 300) -> None:
    """Wait until the process has said `word` on its standard error."""
    end = time.monotonic() + seconds
    while word not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.02)


def listening() -> None:
    """In a child, before it starts: hear Ctrl-C, which a shell turns off for whatever it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_killed_run_continues_to_the_same_bits(soi, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    command = [sys.executable, "-m", "soi_lib.cli", *map(str, LONG), "--out", str(tmp_path / "run")]
    ends = []
    for number in (signal.SIGINT, signal.SIGKILL):
        log = tmp_path / f"{number}.log"
        with open(log, "wb") as handle:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=handle, start_new_session=True, preexec_fn=listening
            )
            until(process, log, "epochs: long")  # a worker is training
            with suppress(ProcessLookupError):
                if number == signal.SIGINT:
                    os.killpg(process.pid, number)  # as a terminal sends it: to the workers as well
                else:
                    os.kill(process.pid, number)
            ends.append(process.wait(timeout=60))
        assert own.read_index(tmp_path / "run")["runs"][0]["state"] == "to do"
    assert ends == [130, -signal.SIGKILL]
    said = (tmp_path / f"{signal.SIGINT}.log").read_text(encoding="utf-8")
    assert said.rstrip().endswith("interrupted; the same command continues")
    assert "Traceback" not in said

    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["trained"] == 1
    (row,) = value["runs"]
    assert row["state"] == "done"

    todo = own.prepare(own.TrainRequest({"long": DatasetSpec(path="long.csv")}, "tiny", 60), tmp_path / "run")
    (spec,) = todo.specs()
    assert spec.key == row["key"]
    other = do_run(spec, RunStore(tmp_path / "undisturbed"))
    run = todo.store.get(spec.key)
    assert run.dynamics("long").fingerprint() == other.dynamics("long").fingerprint()
    assert run.metrics == other.metrics
    pd.testing.assert_frame_equal(run.predictions("long"), other.predictions("long"))
    assert not list(tmp_path.rglob(".tmp-*"))

    before = snapshot(tmp_path / "run")
    code, out, err = soi(*LONG, "--out", tmp_path / "run")
    assert code == 0
    assert "the run was done already: nothing was trained" in err
    assert f"soi report {tmp_path / 'run'}" in err
    assert f"{row['scores']['long']['test']['accuracy']:.3f}" in out
    after = snapshot(tmp_path / "run")
    assert {k: v for k, v in after.items() if not k.endswith(("README.md", "runs.json"))} == {
        k: v for k, v in before.items() if not k.endswith(("README.md", "runs.json"))
    }  # only the command that is written down differs
    code, _, err = soi(*LONG, "--out", tmp_path / "run", "--max-length", 64)
    assert (code, "max length 128, now 64" in err and "--force" in err) == (2, True)
    assert snapshot(tmp_path / "run") == after


def test_ten_megabytes_in_one_cell(soi, place, tmp_path):
    frame = rows(30)
    frame.loc[3, "text"] = f"of a long {'word' * 2_600_000} and more"
    path = csv(tmp_path / "long.csv", frame)
    code, _, err = soi("train", "--train", path, "--model", "tiny", "--epochs", 2, "--out", tmp_path / "r", "--dry-run")
    assert code == 0, err
    todo = own.prepare(own.TrainRequest({"long": DatasetSpec(path=str(path))}, str(place / "tiny"), 2), tmp_path / "r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "run_all", lambda specs, store, **_: [do_run(spec, store) for spec in specs])
        (run,) = own.train(todo)
    assert run.metrics["long"]["truncated"]["train"] + run.metrics["long"]["truncated"]["test"] == 1


def test_how_a_file_is_read_may_be_said(soi, place):
    name = "نظر‌ها.csv.gz"
    frame = rows(64, labels=("no", "yes"))
    frame.to_csv(place / name, sep="~", header=False, index=False, encoding="cp1252")
    csv(place / "other.csv", rows(40, member="yelp", labels=(0, 1)))
    words = (
        "train", "--train", name, "--text", "نظر-ها=1", "--label", "نظر-ها=2", "--no-header", "--separator", "~",
        "--encoding", "cp1252", "--label-names", "no=bad,yes=good, really", "--rows", 40,
        "--model", "tiny", "--epochs", 2, "--out", "new", "--dry-run", "--json",
    )  # fmt: skip
    code, out, err = soi(*words)
    assert code == 0, err
    told = json.loads(out)
    assert sum(told["rows"]["نظر-ها"].values()) == 40
    assert told["labels"]["نظر-ها"] == ["bad", "good, really"]
    assert "نظر-ها" in err
    code, out, err = soi(
        "train", "--member", "a=good.csv", "--member", "b=other.csv", "--label-names", "b=0=no,1=yes",
        "--model", "tiny", "--epochs", 2, "--out", "new", "--dry-run", "--json", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["labels"] == {"a": ["no", "yes"], "b": ["no", "yes"]}
    assert "share a head" in " ".join(json.loads(out)["decided"])
    for words, message in (
        (("--label-names", "no"), "--label-names: this names nothing; found 'no', expected KEY=VALUE"),
        (("--split", "tset=x"), "good.csv: splits: .*'tset'|good.csv: splits: "),
        (("--separator", "::"), "a separator is one character"),
        (("--encoding", "utf-99"), "unknown encoding"),
    ):
        code, out, err = soi(*GOOD, *words, "--out", "never")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert re.search(message, err), err
    assert not (place / "never").exists()


def test_what_a_user_wrote_is_shown_as_it_is(soi, place):
    csv(place / "marked.csv", rows(40, labels=("[/neg]", "[bold]:warning:")))
    code, _, err = soi("train", "--train", "marked.csv", "--model", "tiny", "--epochs", 2, "--out", "new", "--dry-run")
    assert code == 0, err
    assert "[/neg]" in err
    assert "[bold]:warning:" in err
    (place / "[b].csv").write_text("text,label\n", encoding="utf-8")
    code, _, err = soi("train", "--train", "[b].csv", "--model", "tiny", "--out", "never")
    assert (code, err.startswith("error: [b].csv: there are no rows")) == (2, True)
