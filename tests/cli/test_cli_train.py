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

from soi_lib.data.places import DatasetSpec
from soi_lib.runs import own, own_folder
from soi_lib.runs.run import do_run
from soi_lib.runs.store import RunStore


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory, in_this_process):
    """A cache of its own, a tiny model, and files."""
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_CACHE", str(folder / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setenv("SOI_JOBS", "1")
        tiny_bert(folder / "tiny")
        csv(folder / "good.csv", rows(64, labels=("no", "yes")))
        csv(folder / "long.csv", rows(300, labels=("no", "yes")))
        yield folder


GOOD = ("train", "--train", "good.csv", "--model", "tiny", "--epochs", 30)
LONG = ("train", "--train", "long.csv", "--model", "tiny", "--epochs", 12)  # seconds: a signal comes before its end


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
        "1 run of 30 epochs with tiny, seed 0, on the CPU in ",
        "yes 25, no 25",
        "memory: up to 0.0 GB per run for its parameters",
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
    two = ("--dataset", "o=other.csv", "--text", "o=body", "--seed", 0, "--seed", 1)
    words = (*GOOD, *two, "--dry-run", "--out", "new")
    code, _, err = soi(*words)
    assert code == 0
    assert 'good: text column: "text" (guessed' in err
    assert 'o: text column: "body" (as given)' in err
    assert "6 runs of 30 epochs" in " ".join(err.split())
    assert "share a head" not in err  # other label names
    for extra, named in (
        (("--test", "else where.csv"), "--test"),
        (("--dataset", "o=good.csv"), "'o'"),
        (("--dataset", "good.csv"), "'good.csv'"),
        (("--ood", "o=else where.csv"), "found 10: row 1 "),
    ):
        code, _, err = soi(*words, *extra)
        assert (code, named in err) == (2, True), err


MANY = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
BAD = {
    "no column for the text": (f"words,label\n{MANY}", (), r"words, label"),
    "a named column is missing": (f"text,label\n{MANY}", ("--label", "lable"), r"did you mean 'label'"),
    "no text": (f"text,label\n{MANY},a\n", (), r"bad.csv: rows without text; found 1: row 21 .line 22.*--drop empty"),
    "one class": ("text,label\n" + "".join(f"t{i},a\n" for i in range(20)), (), r"same label"),
    "two examples": ("text,label\na,0\nb,1\n", (), r"too few rows"),
    "a label a row": ("text,label\n" + "".join(f"t{i},{i}\n" for i in range(20)), (), r"20 values in 20 rows"),
    "one epoch": (f"text,label\n{MANY}", ("--epochs", 1), r"--epochs"),
    "latin-1": (b"text,label\ncaf\xe9,a\n", (), r"bad.csv line 2"),
    "a header only": ("text,label\n", (), r"bad.csv: there are no rows"),
    "a broken row": ("text,label\na,b\nc\n", (), r"line 3"),
    "no such file": ("", ("--test", "absent.csv"), r"absent.csv"),
    "a file of another kind": ("", ("--test", "tiny/model.safetensors"), r".safetensors"),
    "a model that is none": (f"text,label\n{MANY}", ("--model", "cache"), r"config.json"),
    "nothing that names labels": (f"text,label\n{MANY}", ("--label-names", "no"), r"--label-names"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(soi, place, name):
    content, words, message = BAD[name]
    (place / "bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {k for k in snapshot(place) if "cache" not in k}
    code, out, err = soi("train", "--train", "bad.csv", "--out", "never", "--model", "tiny", *words)
    assert (code, out) == (2, "")
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err
    assert {k for k in snapshot(place) if "cache" not in k} == before
    assert not (place / "never").exists()


@pytest.mark.parametrize("phase", ["reading", "profile", "index"])
def test_an_interrupt_at_any_point_ends_with_130(soi, place, monkeypatch, phase, tmp_path):
    """Where Ctrl-C strikes Python raises KeyboardInterrupt; here at a chosen place."""

    def strike(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wrote = own._write
    with monkeypatch.context() as patch:
        if phase == "reading":
            patch.setattr(own, "load_dataset", strike)
        else:
            last = own_folder.INDEX if phase == "index" else own_folder.PROFILE
            patch.setattr(own, "_write", lambda p, data: strike() if p.name == last else wrote(p, data))
        code, _, err = soi(*GOOD, "--out", tmp_path / "run")
    assert code == 130
    assert "interrupted; run the same command again to continue" in err
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
        assert own_folder.read_index(tmp_path / "run")["runs"][0]["state"] == "to do"
    assert ends == [130, -signal.SIGKILL]
    said = (tmp_path / f"{signal.SIGINT}.log").read_text(encoding="utf-8")
    assert said.rstrip().endswith("interrupted; run the same command again to continue")
    assert "Traceback" not in said

    code, out, err = soi(*LONG, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    value = json.loads(out)
    assert value["trained"] == 1
    (row,) = value["runs"]
    assert row["state"] == "done"

    todo = own.prepare(own.TrainRequest({"long": DatasetSpec(path="long.csv")}, "tiny", 12), tmp_path / "run")
    (spec,) = todo.specs()
    assert spec.key == row["key"]
    other = do_run(spec, RunStore(tmp_path / "undisturbed"))
    run = todo.store.get(spec.key)
    assert run.dynamics("long").fingerprint() == other.dynamics("long").fingerprint()
    assert run.metrics == other.metrics
    pd.testing.assert_frame_equal(run.predictions("long"), other.predictions("long"))
    assert not list(tmp_path.rglob(".tmp-*"))

    before = snapshot(tmp_path / "run" / "runs")
    code, out, err = soi(*LONG, "--out", tmp_path / "run")
    assert code == 0
    assert "the run was already done: nothing was trained" in err
    assert f"soi report {tmp_path / 'run'}" in err
    assert f"{row['scores']['long']['test']['accuracy']:.3f}" in out
    assert snapshot(tmp_path / "run" / "runs") == before
    code, _, err = soi(*LONG, "--out", tmp_path / "run", "--max-length", 64)
    assert (code, "max length 128, now 64" in err and "--force" in err) == (2, True)


def test_ten_megabytes_in_one_cell(place, tmp_path):
    frame = rows(30)
    frame.loc[3, "text"] = f"of a long {'word' * 2_600_000} and more"
    path = csv(tmp_path / "long.csv", frame)
    todo = own.prepare(own.TrainRequest({"long": DatasetSpec(path=str(path))}, str(place / "tiny"), 2), tmp_path / "r")
    (run,) = own.train(todo, quiet=True)
    assert run.metrics["long"]["truncated"]["train"] + run.metrics["long"]["truncated"]["test"] == 1


def test_how_a_file_is_read_may_be_chosen(soi, place):
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
        "train", "--dataset", "a=good.csv", "--dataset", "b=other.csv", "--label-names", "b=0=no,1=yes",
        "--model", "tiny", "--epochs", 2, "--out", "new", "--dry-run", "--json", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["labels"] == {"a": ["no", "yes"], "b": ["no", "yes"]}
    assert "share a head" in " ".join(json.loads(out)["decided"])


def test_kept_logits_give_suggestions_for_many_classes(soi, place):
    frame = rows(60).assign(sentiment=["one", "two", "three"] * 20)
    csv(place / "three.csv", frame)
    words = ("train", "--train", "three.csv", "--model", "tiny", "--epochs", 2, "--out", "kept", "--quiet")
    assert soi(*words, "--keep-logits", "--no-model")[0] == 0
    code, out, err = soi("label-issues", "kept", "--rule", "margin", "--from", "three.csv", "--json")
    listed = json.loads(out)["label_issues"]
    assert (code, len(listed)) == (0, 20), err
    assert {row["suggested"] for row in listed} <= {"one", "two", "three"}
    code, _, err = soi(*words)
    assert (code, "keep logits True, now False" in err) == (2, True), err
