"""`soi train`: the preview, errors that write nothing, interruptions that lose nothing; examples of all commands."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import typer
from authors_data import tiny_bert
from own_data import csv, rows, snapshot

from soi_lib.cli import app
from soi_lib.data.places import DatasetSpec
from soi_lib.runs import own, own_folder
from soi_lib.runs.own_folder import read_index
from soi_lib.runs.run import do_run
from soi_lib.runs.store import RunStore


@pytest.fixture(scope="module", autouse=True)
def place(workplace, in_this_process):
    tiny_bert(workplace / "tiny")
    csv(workplace / "good.csv", rows(64, labels=("no", "yes")))
    csv(workplace / "long.csv", rows(300, labels=("no", "yes")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_JOBS", "1")
        yield workplace


GOOD = ("train", "--train", "good.csv", "--model", "tiny", "--epochs", 30)
LONG = ("train", "--train", "long.csv", "--model", "tiny", "--epochs", 12)  # seconds: a signal comes before the end


def test_the_preview_shows_everything_before_training(soi, place):
    out, err = soi(*GOOD, "--out", "new", "--dry-run")
    assert out == ""
    assert not (place / "new").exists()
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
    assert soi(*GOOD, "--out", "new", "--dry-run", "--quiet") == ("", "nothing was written (--dry-run)\n")


def test_several_datasets_and_the_options_of_each(soi, refused, place):
    csv(place / "other.csv", rows(20, member="yelp").rename(columns={"text": "body"}))
    csv(place / "else where.csv", rows(10, start=900, labels=("no", "yes")).rename(columns={"text": "body"}))
    two = ("--dataset", "o=other.csv", "--text", "o=body", "--seed", 0, "--seed", 1)
    words = (*GOOD, *two, "--dry-run", "--out", "new")
    _, err = soi(*words)
    assert 'good: text column: "text" (guessed' in err
    assert 'o: text column: "body" (as given)' in err
    assert "6 runs of 30 epochs" in " ".join(err.split())
    assert "share a head" not in err  # other label names
    refused("--test", *words, "--test", "else where.csv")
    refused("'o'", *words, "--dataset", "o=good.csv")
    refused("'good.csv'", *words, "--dataset", "good.csv")
    refused("found 10: row 1 ", *words, "--ood", "o=else where.csv")


MANY = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
BAD = {
    "a missing column": (f"text,label\n{MANY}", ("--label", "lable"), r"did you mean 'label'"),
    "one class": ("text,label\n" + "".join(f"t{i},a\n" for i in range(20)), (), r"same label"),
    "two examples": ("text,label\na,0\nb,1\n", (), r"too few rows"),
    "a label for every row": ("text,label\n" + "".join(f"t{i},{i}\n" for i in range(20)), (), r"20 values in 20 rows"),
    "one epoch": (f"text,label\n{MANY}", ("--epochs", 1), r"--epochs"),
    "a header only": ("text,label\n", (), r"bad.csv: there are no rows"),
    "no such file": ("", ("--test", "absent.csv"), r"absent.csv"),
    "a file of another kind": ("", ("--test", "tiny/model.safetensors"), r".safetensors"),
    "a malformed option": (f"text,label\n{MANY}", ("--label-names", "no"), r"--label-names"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(refused, place, name):
    content, words, message = BAD[name]
    (place / "bad.csv").write_text(content)
    refused(message, "train", "--train", "bad.csv", "--out", "never", "--model", "tiny", *words)
    assert not (place / "never").exists()


@pytest.mark.parametrize("phase", ["reading", "profile", "index"])
def test_an_interrupt_at_any_point_ends_with_130(ended, soi, place, monkeypatch, phase, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wrote = own._write
    with monkeypatch.context() as patch:
        if phase == "reading":
            patch.setattr(own, "load_dataset", interrupt)
        else:
            last = own_folder.INDEX if phase == "index" else own_folder.PROFILE
            patch.setattr(own, "_write", lambda p, data: interrupt() if p.name == last else wrote(p, data))
        code, _, err = ended(*GOOD, "--out", tmp_path / "run")
    assert code == 130
    assert "interrupted; run the same command again to continue" in err
    assert (tmp_path / "run").exists() == (phase == "index")
    soi(*GOOD, "--out", tmp_path / "run", "--dry-run")  # the same command is accepted again


def until(process: subprocess.Popen[bytes], log, word: str) -> None:
    end = time.monotonic() + 300
    while word not in (text := log.read_text(encoding="utf-8")):
        assert process.poll() is None, text
        assert time.monotonic() < end, text
        time.sleep(0.02)


def accept_interrupts() -> None:
    """In a child, before it starts: accept Ctrl-C, which shells turn off for background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_killed_run_continues_to_the_same_bits(soi, refused, place, tmp_path):
    command = [sys.executable, "-m", "soi_lib.cli", *map(str, LONG), "--out", str(tmp_path / "run")]
    ends = []
    for number in (signal.SIGINT, signal.SIGKILL):
        log = tmp_path / f"{number}.log"
        with open(log, "wb") as handle:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=handle, start_new_session=True, preexec_fn=accept_interrupts
            )
        until(process, log, "epochs: long")  # a worker is training
        with suppress(ProcessLookupError):
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does: to the workers as well
            else:
                os.kill(process.pid, number)
        ends.append(process.wait(timeout=60))
        assert own_folder.read_index(tmp_path / "run")["runs"][0]["state"] == "to do"
    assert ends == [130, -signal.SIGKILL]
    said = (tmp_path / f"{signal.SIGINT}.log").read_text(encoding="utf-8")
    assert said.rstrip().endswith("interrupted; run the same command again to continue")
    assert "Traceback" not in said

    out, err = soi(*LONG, "--out", tmp_path / "run", "--json")
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
    out, err = soi(*LONG, "--out", tmp_path / "run")
    assert "the run was already done: nothing was trained" in err
    assert f"soi report {tmp_path / 'run'}" in err
    assert f"{row['scores']['long']['test']['accuracy']:.3f}" in out
    assert snapshot(tmp_path / "run" / "runs") == before
    refused("max length 128, now 64.*--force", *LONG, "--out", tmp_path / "run", "--max-length", 64)


def test_ten_megabytes_in_one_cell(place, tmp_path):
    frame = rows(30)
    frame.loc[3, "text"] = f"of a long {'word' * 2_600_000} and more"
    path = csv(tmp_path / "long.csv", frame)
    todo = own.prepare(own.TrainRequest({"long": DatasetSpec(path=str(path))}, str(place / "tiny"), 2), tmp_path / "r")
    (run,) = own.train(todo, quiet=True)
    assert run.metrics["long"]["truncated"]["train"] + run.metrics["long"]["truncated"]["test"] == 1


def test_options_choose_how_a_file_is_read(soi, place):
    name = "نظر‌ها.csv.gz"
    frame = rows(64, labels=("no", "yes"))
    frame.to_csv(place / name, sep="~", header=False, index=False, encoding="cp1252")
    words = (
        "train", "--train", name, "--text", "نظر-ها=1", "--label", "نظر-ها=2", "--no-header", "--separator", "~",
        "--encoding", "cp1252", "--label-names", "no=bad,yes=good, really", "--rows", 40,
        "--model", "tiny", "--epochs", 2, "--out", "new", "--dry-run", "--json",
    )  # fmt: skip
    out, err = soi(*words)
    decided = json.loads(out)
    assert sum(decided["rows"]["نظر-ها"].values()) == 40
    assert decided["labels"]["نظر-ها"] == ["bad", "good, really"]
    assert "نظر-ها" in err


def test_kept_logits_give_suggestions_for_many_classes(soi, refused, place):
    csv(place / "three.csv", rows(60).assign(sentiment=["one", "two", "three"] * 20))
    words = ("train", "--train", "three.csv", "--model", "tiny", "--epochs", 2, "--out", "kept", "--quiet")
    soi(*words, "--keep-logits", "--no-model")
    out, err = soi("label-issues", "kept", "--rule", "margin", "--from", "three.csv", "--json")
    listed = json.loads(out)["label_issues"]
    assert len(listed) == 20, err
    assert {row["suggested"] for row in listed} <= {"one", "two", "three"}
    refused("keep logits True, now False", *words)


PAGE = (Path(__file__).resolve().parents[2] / "book" / "examples.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
HUB = ("--config", "--split")  # options for datasets of the hub


@pytest.fixture(scope="module")
def shop(place):
    """The files that the page reads."""
    for name, start in (("reviews", 0), ("more", 500), ("elsewhere", 700)):
        frame = rows(96, start=start, labels=("bad", "good")).set_axis(["review", "verdict"], axis=1)
        csv(place / f"{name}.csv", frame.assign(key=[f"{name}-{n}" for n in range(len(frame))]))
    csv(place / "films.csv", rows(64, member="reviews", labels=("bad", "good")).set_axis(["text", "label"], axis=1))
    export = rows(70, start=900, labels=("bad", "good"))[["sentiment", "text"]]
    export.loc[3, "sentiment"], export.loc[4, "text"] = "Good", "café"
    export.to_csv(place / "export.txt", sep=";", header=False, index=False, encoding="cp1252")
    pairs = rows(90).rename(columns={"text": "question"})
    pairs = pairs.assign(answer=pairs["question"].str[::-1], fits=["yes", "no", "partly"] * 30)
    pairs.drop(columns="sentiment").to_json(place / "pairs.jsonl", orient="records", lines=True)


def test_every_option_is_on_the_page():
    for name, command in typer.main.get_command(app).commands.items():
        given = {word for line in LINES for word in shlex.split(line)[2:] if line.startswith(f"soi {name} ")}
        options = [part for part in command.params if part.opts[0].startswith("-")]
        lacking = [part.opts[0] for part in options if not given & {*part.opts, *part.secondary_opts}]
        assert lacking == [], name


def test_every_command_runs(soi, place, shop, monkeypatch):
    monkeypatch.delenv("SOI_CACHE")  # `soi doctor` misses packages in an empty one
    for line in LINES:
        words = shlex.split(line)[1:]
        if set(words) & set(HUB):
            continue
        if {"alone", "together"} & set(words) and not (place / "alone").exists():
            runs = [r for r in read_index(place / "both")["runs"] if "shop" in r["setting"] and r["seed"] == 0]
            for name, run in zip(("alone", "together"), runs, strict=True):
                shutil.copytree(place / "both" / run["folder"], place / name)
        if "reviewed.csv" in words:
            review = pd.read_csv(place / "review.csv")
            csv(place / "reviewed.csv", review.assign(corrected="good"))
        soi(*words)
