"""`soi second-stage`: continue the models of a folder on a subset, and compare them with the controls."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from authors_data import tiny_bert
from own_data import csv, rows, snapshot

from soi_lib import load_classifier
from soi_lib.runs.own_folder import open_own
from soi_lib.runs.own_stage import gains


@pytest.fixture(scope="module")
def place(workplace, in_this_process):
    """A tiny model, and a file."""
    tiny_bert(workplace / "tiny")
    csv(workplace / "reviews.csv", rows(120, labels=("no", "yes")))
    return workplace


TRAIN = ("train", "--train", "reviews.csv", "--model", "tiny", "--epochs", 4, "--precision", "fp32", "--seed", 0)


@pytest.fixture
def folder(soi, place):
    """Two seeds of a short training."""
    assert soi(*TRAIN, "--seed", 1, "--out", "trained")[0] == 0
    return place / "trained"


STAGE = ("second-stage", "trained", "--subset", "hard+ambiguous", "--learning-rate-factor", 1)


def test_gains_are_compared_with_the_controls_and_the_models_are_kept(soi, folder):
    code, out, err = soi(*STAGE, "--json")
    assert code == 0, err
    assert "left to learn" in err
    (row,) = json.loads(out)["gains"]
    assert row["seeds"] == 2
    assert row["over random examples"] == pytest.approx(row["second stage"] - row["random examples"])
    for against in ("first model", "random examples", "all examples"):
        assert row[f"low over {against}"] <= row[f"over {against}"] <= row[f"high over {against}"]
    assert row["advice"]
    models = sorted(path.name for path in (folder / "models").iterdir())
    name = "ambiguous+hard-lr-5e-05"
    assert models == ["reviews-seed0", f"reviews-seed0-{name}", "reviews-seed1", f"reviews-seed1-{name}"]
    first, second = (load_classifier(folder / "models" / name, device="cpu").predict(["good"]) for name in models[:2])
    assert first["p"][0] != second["p"][0]
    before = snapshot(folder)
    code, _, err = soi(*STAGE)
    assert code == 0
    assert "all 6 trainings, including controls, are done already" in err
    assert snapshot(folder) == before  # a finished stage is not trained again
    assert list(gains(folder)["subset"]) == [name]


def test_other_ids_and_another_recipe_are_other_stages(soi, place):
    assert soi(*TRAIN, "--out", "single")[0] == 0
    folder = place / "single"
    names = []
    for ids, epochs in ((range(60), 1), (range(20, 80), 1), (range(20, 80), 2)):
        (place / "ids.txt").write_text("\n".join(f"{i:06d}" for i in [*ids, 999]), encoding="utf-8")
        code, out, err = soi("second-stage", "single", "--ids", "ids.txt", "--epochs", epochs, "--json")
        assert code == 0, err
        assert re.search(r"caution: \d+ ids do not belong to training examples: .*", err)
        names.append(json.loads(out)["subset"])
        assert all((folder / model / "soi.json").is_file() for model in json.loads(out)["models"])
    assert len(set(names)) == 3
    assert set(names) <= set(gains(folder)["subset"])


def test_dry_run_trains_nothing(soi, folder):
    before = snapshot(folder)
    code, _, err = soi(*STAGE, "--epochs", 2, "--dry-run")
    assert code == 0
    assert "nothing was trained" in err
    assert "6 trainings, including controls: a minute or two on one core; disk: about 0 MB" in err
    assert re.search(r"\d+ of \d+ examples are used: more frequent labels are cut", err)
    assert snapshot(folder) == before


def test_the_seeds_of_a_folder_are_compared(soi, refused, place, folder):
    code, out, _ = soi("reliability", folder)
    assert code == 0
    assert ", 2 runs, " in out
    code, out, err = soi("label-issues", folder, "--from", "reviews.csv", "--top", 3)
    assert code == 0, err
    assert "scores are averaged over 2 runs" in err
    shutil.copytree(folder / "runs", place / "bare" / "runs")  # without the index
    refused("agreement needs several runs of one setting", "reliability", "bare")


def test_impossible_subsets_are_named(soi, refused, place, folder):
    ids = open_own(folder)[0].runs[0].dynamics("reviews").ids
    for name, text in (("empty", ""), ("table", "id,text\n1,good\n"), ("one", f"{ids[0]}\n")):
        (place / name).write_text(text, encoding="utf-8")
    words = ("train", "--train", "reviews.csv", "--model", "tiny", "--epochs", 2, "--no-model", "--out", "without")
    assert soi(*words)[0] == 0
    before = snapshot(folder)
    for options, what in (
        (("trained", "--subset", "HARD"), "HARD"),
        (("trained", "--subset", "hard", "--ids", "one"), "--ids"),
        (("trained", "--ids", "absent"), "absent"),
        (("trained", "--ids", "empty"), "the file contains no ids"),
        (("trained", "--ids", "table"), "none of these is the id of a training example"),
        (("trained", "--ids", "one"), "at least 8"),
        (("without",), "was not kept"),
    ):
        refused(what, "second-stage", *options)
    assert snapshot(folder) == before
