"""The models that `soi train` keeps: predictions, and second stages compared with their controls."""

import io
import json
import re
import shutil

import pandas as pd
import pytest
from authors_data import tiny_bert
from own_data import csv, rows, snapshot
from transformers import pipeline

from soi_lib import load_classifier
from soi_lib.runs import own_folder
from soi_lib.runs.own_folder import open_own
from soi_lib.runs.own_stage import gains


@pytest.fixture(scope="module")
def place(workplace, in_this_process):
    tiny_bert(workplace / "tiny")
    csv(workplace / "train.csv", rows(64, labels=("no", "yes")))
    csv(workplace / "test.csv", rows(20, labels=("no", "yes"), start=500))
    csv(workplace / "reviews.csv", rows(120, labels=("no", "yes")))
    csv(workplace / "more.csv", rows(64, member="reviews", labels=("bad", "good")))
    return workplace


TRAIN = ("train", "--train", "train.csv", "--test", "test.csv", "--model", "tiny", "--epochs", 4, "--precision", "fp32")


def test_the_model_predicts_what_the_run_recorded(soi, place):
    _, err = soi(*TRAIN, "--out", "one")
    assert "MB per run for its model" in err
    (row,) = own_folder.read_index(place / "one")["runs"]
    assert row["model"] == "models/own-seed0"
    out, _ = soi("predict", "one", "test.csv")
    made = pd.read_csv(io.StringIO(out))
    assert list(made.columns) == ["text", "sentiment", "predicted", "p"]
    results, _ = own_folder.open_own(place / "one")
    recorded = results.runs[0].predictions("own").query("split == 'test'").sort_values("id")
    labels = results.corpus("own").labels
    assert list(made["predicted"]) == [labels[code] for code in recorded["predicted"]]
    chosen = recorded["p_gold"].where(recorded["predicted"] == recorded["gold"], 1 - recorded["p_gold"])
    assert made["p"].to_numpy() == pytest.approx(chosen.to_numpy(), abs=1e-4)
    made[["text"]].to_csv(place / "plain.csv", sep=";", header=False, index=False, encoding="utf-16")
    reading = ("--no-header", "--separator", ";", "--encoding", "utf-16", "--text", "1")
    again = pd.read_csv(io.StringIO(soi("predict", "one", "plain.csv", *reading)[0]))
    assert list(again["predicted"]) == list(made["predicted"])


def test_a_model_of_pairs_takes_pairs(soi, refused, place):
    pairs = rows(64, labels=("no", "yes")).assign(answer=[f"the answer is {n}" for n in range(64)])
    csv(place / "pairs.csv", pairs)
    words = ("train", "--train", "pairs.csv", "--text-pair", "answer", "--model", "tiny", "--epochs", 2)
    soi(*words, "--out", "pairs")
    soi("predict", "pairs", "pairs.csv", "--text-pair", "answer")
    refused("was trained on pairs of texts", "predict", "pairs", "pairs.csv")
    pairs[["text"]].to_csv(place / "one.csv", header=False, index=False)
    refused("--no-header", "predict", "one", "one.csv")
    soi("predict", "one", "one.csv", "--no-header")


def test_a_bert_with_its_pooler_opens_in_transformers(soi, place):
    soi(*TRAIN, "--out", "pooled", "--pooling", "pooler")
    made = pd.read_csv(io.StringIO(soi("predict", "pooled", "test.csv")[0]))
    model = pipeline("text-classification", model=str(place / "pooled/models/own-seed0"), device="cpu")
    found = model(list(made["text"]))
    assert [one["label"] for one in found] == list(made["predicted"])
    assert [one["score"] for one in found] == pytest.approx(made["p"].to_numpy(), abs=1e-4)


def test_a_model_is_written_once_and_a_lost_one_is_restored_completely_or_not_at_all(soi, refused, place, small_files):
    soi(*TRAIN, "--out", "one")
    model = place / "one" / "models" / "own-seed0"
    before = snapshot(model)
    soi(*TRAIN, "--out", "one")
    assert snapshot(model) == before
    shutil.rmtree(model)
    small_files(20_000)
    refused("own-seed0: could not write", *TRAIN, "--out", "one", "--quiet")
    small_files()
    assert list((place / "one/models").iterdir()) == []
    soi(*TRAIN, "--out", "one")
    assert {k: v[0] for k, v in snapshot(model).items()} == {k: v[0] for k, v in before.items()}


def test_one_of_several_models_or_datasets_must_be_named(soi, refused, place):
    words = ("train", "--dataset", "a=train.csv", "--dataset", "b=more.csv", "--model", "tiny", "--epochs", 2)
    soi(*words, "--out", "two")
    assert sorted(p.name for p in (place / "two" / "models").iterdir()) == ["a+b-seed0", "a-seed0", "b-seed0"]
    both = ("predict", "two/models/a+b-seed0", "test.csv")
    soi(*both, "--dataset", "b", "--out", "labelled.csv")
    assert set(pd.read_csv(place / "labelled.csv")["predicted"]) <= {"bad", "good"}
    refused(r"a\+b-seed0", "predict", "two", "test.csv")
    refused("a or b", *both)
    refused(r"labelled\.csv", *both, "--dataset", "b", "--out", "labelled.csv")  # it exists now


@pytest.mark.parametrize(
    ("text", "options", "what"),
    [("a,b\n1,2\n", (), "text"), ("text\nfine\n", ("--text", "txt"), "txt"), ("id,text\n1,fine\n2,\n", (), "row 2")],
)
def test_rows_that_cannot_be_predicted_are_named(soi, refused, place, text, options, what):
    soi(*TRAIN, "--out", "one")
    (place / "bad.csv").write_text(text, encoding="utf-8")
    refused(what, "predict", "one", "bad.csv", *options)


def changed_byte(model):
    data = bytearray((model / "heads.safetensors").read_bytes())
    data[-3] ^= 1
    (model / "heads.safetensors").write_bytes(data)


def another_label(model):
    about = json.loads((model / "soi.json").read_text(encoding="utf-8"))
    about["datasets"]["own"].append("maybe")
    (model / "soi.json").write_text(json.dumps(about), encoding="utf-8")


def old_weights(model):
    (model / "encoder/model.safetensors").rename(model / "encoder/pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (changed_byte, r"heads\.safetensors"),
        (another_label, "wrong number of labels; found 2, expected 3"),
        (old_weights, r"has no model\.safetensors; found .*pytorch_model\.bin"),
    ],
)
def test_a_damaged_model_is_not_used(soi, refused, place, tmp_path, spoil, what):
    soi(*TRAIN, "--out", "one")
    shutil.copytree(place / "one/models/own-seed0", tmp_path / "model")
    spoil(tmp_path / "model")
    refused(what, "predict", tmp_path / "model", "test.csv")


REVIEWS = ("train", "--train", "reviews.csv", "--model", "tiny", "--epochs", 4, "--precision", "fp32", "--seed", 0)


@pytest.fixture
def folder(soi, place):
    soi(*REVIEWS, "--seed", 1, "--out", "trained")
    return place / "trained"


STAGE = ("second-stage", "trained", "--subset", "hard+ambiguous", "--learning-rate-factor", 1)


def test_gains_are_compared_with_the_controls_and_the_models_are_kept(soi, folder):
    out, err = soi(*STAGE, "--json")
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
    _, err = soi(*STAGE)
    assert "all 6 trainings, including controls, are done already" in err
    assert snapshot(folder) == before  # a finished stage is not trained again
    assert list(gains(folder)["subset"]) == [name]


def test_other_ids_and_another_recipe_are_other_stages(soi, place):
    soi(*REVIEWS, "--out", "single")
    folder = place / "single"
    names = []
    for ids, epochs in ((range(60), 1), (range(20, 80), 1), (range(20, 80), 2)):
        (place / "ids.txt").write_text("\n".join(f"{i:06d}" for i in [*ids, 999]), encoding="utf-8")
        out, err = soi("second-stage", "single", "--ids", "ids.txt", "--epochs", epochs, "--json")
        assert re.search(r"caution: \d+ ids do not belong to training examples: .*", err)
        names.append(json.loads(out)["subset"])
        assert all((folder / model / "soi.json").is_file() for model in json.loads(out)["models"])
    assert len(set(names)) == 3
    assert set(names) <= set(gains(folder)["subset"])


def test_dry_run_trains_nothing(soi, folder):
    before = snapshot(folder)
    _, err = soi(*STAGE, "--epochs", 2, "--dry-run")
    assert "nothing was trained" in err
    assert "6 trainings, including controls: a minute or two on one core; disk: about 0 MB" in err
    assert re.search(r"\d+ of \d+ examples are used: more frequent labels are cut", err)
    assert snapshot(folder) == before


def test_the_seeds_of_a_folder_are_compared(soi, refused, place, folder):
    out, _ = soi("reliability", folder)
    assert ", 2 runs, " in out
    out, err = soi("label-issues", folder, "--from", "reviews.csv", "--top", 3)
    assert "scores are averaged over 2 runs" in err
    shutil.copytree(folder / "runs", place / "bare" / "runs")  # without the index
    refused("agreement needs several runs of one setting", "reliability", "bare")


def test_impossible_subsets_are_named(soi, refused, place, folder):
    ids = open_own(folder)[0].runs[0].dynamics("reviews").ids
    for name, text in (("empty", ""), ("table", "id,text\n1,good\n"), ("single id", f"{ids[0]}\n")):
        (place / name).write_text(text, encoding="utf-8")
    words = ("train", "--train", "reviews.csv", "--model", "tiny", "--epochs", 2, "--no-model", "--out", "without")
    soi(*words)
    before = snapshot(folder)
    for options, what in (
        (("trained", "--subset", "HARD"), "HARD"),
        (("trained", "--subset", "hard", "--ids", "single id"), "--ids"),
        (("trained", "--ids", "absent"), "absent"),
        (("trained", "--ids", "empty"), "the file contains no ids"),
        (("trained", "--ids", "table"), "none of these is the id of a training example"),
        (("trained", "--ids", "single id"), "at least 8"),
        (("without",), "was not kept"),
    ):
        refused(what, "second-stage", *options)
    assert snapshot(folder) == before
