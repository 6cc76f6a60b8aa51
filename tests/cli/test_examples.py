"""The page of examples has every option of every command, and every command on it runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import typer
from authors_data import tiny_bert
from own_data import csv, rows

from soi_lib.cli import app
from soi_lib.runs.own_folder import read_index

PAGE = (Path(__file__).resolve().parents[2] / "book" / "examples.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
HUB = ("--config", "--split")  # options for datasets of the hub


@pytest.fixture(scope="module")
def place(tmp_path_factory, in_this_process):
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        tiny_bert(folder / "tiny")
        for name, start in (("reviews", 0), ("more", 500), ("elsewhere", 700)):
            frame = rows(96, start=start, labels=("bad", "good")).set_axis(["review", "verdict"], axis=1)
            csv(folder / f"{name}.csv", frame.assign(key=[f"{name}-{n}" for n in range(len(frame))]))
        csv(
            folder / "films.csv", rows(64, member="reviews", labels=("bad", "good")).set_axis(["text", "label"], axis=1)
        )
        export = rows(70, start=900, labels=("bad", "good"))[["sentiment", "text"]]
        export.loc[3, "sentiment"], export.loc[4, "text"] = "Good", "café"
        export.to_csv(folder / "export.txt", sep=";", header=False, index=False, encoding="cp1252")
        pairs = rows(90).rename(columns={"text": "question"})
        pairs = pairs.assign(answer=pairs["question"].str[::-1], fits=["yes", "no", "partly"] * 30)
        pairs.drop(columns="sentiment").to_json(folder / "pairs.jsonl", orient="records", lines=True)
        yield folder


def test_every_option_is_on_the_page():
    for name, command in typer.main.get_command(app).commands.items():
        given = {word for line in LINES for word in shlex.split(line)[2:] if line.startswith(f"soi {name} ")}
        options = [part for part in command.params if part.opts[0].startswith("-")]
        lacking = [part.opts[0] for part in options if not given & {*part.opts, *part.secondary_opts}]
        assert lacking == [], name


def test_every_command_runs(soi, place):
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
