"""Training on the user's own files: what the folder contains, when it is rejected, how it is continued."""

import json
import shutil

import pandas as pd
import pytest
import torch
from authors_data import tiny_bert
from own_data import csv, rows, snapshot

from soi_lib.data.places import DatasetSpec
from soi_lib.errors import EncoderError, OutputExistsError, ProfileError, SoiError, StoreError
from soi_lib.runs import own, own_folder


@pytest.fixture(scope="module", autouse=True)
def place(workplace, in_this_process):
    tiny_bert(workplace / "tiny")
    csv(workplace / "a.csv", rows(40))
    csv(workplace / "b.csv", rows(30, member="yelp"))
    csv(workplace / "ood.csv", rows(10, start=500))
    return workplace


A, B = DatasetSpec(path="a.csv", ood="ood.csv"), DatasetSpec(path="b.csv")


def request(**values) -> own.TrainRequest:
    return own.TrainRequest(**({"datasets": {"a": A, "b": B}, "model": "tiny", "epochs": 2, "seeds": (0, 1)} | values))


def finish(todo: own.TrainingJob) -> None:
    own.train(todo, command="soi train --as-in-the-test", models=False, quiet=True)


@pytest.fixture(scope="module")
def folder(place):
    finish(own.prepare(request(), place / "done"))
    return place / "done"


def test_the_folder_explains_itself(place, folder):
    index = own_folder.read_index(folder)
    assert [(r["setting"], r["seed"], r["state"]) for r in index["runs"]] == [
        (setting, seed, "done") for setting in (["a"], ["b"], ["a", "b"]) for seed in (0, 1)
    ]
    results, _ = own_folder.open_own(folder)
    for row in index["runs"]:
        for member, path in row["dynamics"].items():
            dynamics = results.run(row["setting"], row["seed"]).dynamics(member)
            assert (folder / path).is_file()
            assert dynamics.meta.comparison == "user"
            assert dynamics.meta.label_names == ("0", "4")
            kept = own_folder.training_rows(folder, member)
            texts = dict(zip(kept.ids, kept.text, strict=True))
            original = pd.read_csv(place / f"{member}.csv")
            for key, gold in zip(dynamics.ids, dynamics.gold, strict=True):
                assert texts[key] == original["text"][int(key)]
                assert str(original["sentiment"][int(key)]) == dynamics.meta.label_names[gold]
    assert results.splits("a") == ["test", "ood"]
    assert results.splits("b") == ["test"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(row["dynamics"][row["setting"][0]] in readme for row in index["runs"])
    assert "soi train --as-in-the-test" in readme
    assert "a and b have the same labels, so they share a head" in readme


def test_finished_runs_are_not_repeated_and_seeds_can_be_added(folder):
    before = snapshot(folder)
    todo = own.prepare(request(), folder)
    assert todo.finished() == 6
    finish(todo)
    assert snapshot(folder) == before
    more = own.prepare(request(seeds=(0, 1, 2)), folder)
    assert more.finished() == 6
    assert len(more.settings) * len(more.profile.seeds) == 9


def test_a_folder_keeps_its_precision_on_another_processor(folder, monkeypatch):
    kept = own_folder.own_profile(folder).training.precision
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: kept == "fp32")
    assert own.prepare(request(), folder).finished() == 6
    with pytest.raises(OutputExistsError, match=f"precision {kept}, now"):
        own.prepare(request(precision={"fp32": "bf16", "bf16": "fp32"}[kept]), folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 3}, r"epochs 2, now 3"),
        ({"seeds": (1,)}, r"seeds 0, 1, now 1"),
        ({"datasets": {"a": A}}, r"datasets a, b, now a"),
        ({"datasets": {"a": A, "b": DatasetSpec(path="changed.csv")}}, r"other rows of b"),
    ],
)
def test_other_settings_and_other_rows_are_named(place, folder, change, named):
    csv(place / "changed.csv", rows(31, member="yelp"))
    before = snapshot(folder)
    with pytest.raises(OutputExistsError, match=rf"{named}.*--force"):
        own.prepare(request(**change), folder)
    assert own.prepare(request(**change), folder, force=True).begun
    assert snapshot(folder) == before


def test_the_slower_of_two_commands_that_create_a_folder_at_once_is_rejected(tmp_path):
    one, two = (own.prepare(request(epochs=epochs, seeds=(0,)), tmp_path / "new") for epochs in (2, 3))
    finish(one)
    with pytest.raises(OutputExistsError, match=r"epochs 2, now 3"):
        finish(two)
    assert own.prepare(request(seeds=(0,)), tmp_path / "new").finished() == 3


def test_a_moved_folder_is_finished_and_an_unfinished_one_is_not(folder, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    assert own.prepare(request(), part).finished() == 6
    assert len(own_folder.open_own(part)[0].runs) == 6
    for row in own_folder.read_index(part)["runs"]:
        if row["seed"] == 1 and row["setting"] == ["b"]:
            shutil.rmtree(part / row["folder"])
    results, _ = own_folder.open_own(part)
    assert {run.seed for run in results.runs} == {0}  # seed 1 lacks a run, so its other runs are not compared
    shutil.rmtree(part / "runs")
    with pytest.raises(StoreError, match=r"the runs are not finished; found 0 of 6. Next: soi train --as-in-the-test"):
        own_folder.open_own(part)
    (part / "runs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match=r"runs.json: cannot be read"):
        own_folder.open_own(part)


def test_folders_that_cannot_be_written_to(tmp_path):
    todo = request()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(SoiError, match="the output folder is a file"):
        own.prepare(todo, tmp_path / "file")
    with pytest.raises(OutputExistsError, match=r"the folder contains something else; found file"):
        own.prepare(todo, tmp_path)
    with pytest.raises(SoiError, match=r"could not write; found Not a directory"):
        own.train(own.prepare(todo, tmp_path / "file" / "below"))
    with pytest.raises(SoiError, match=r"could not write"):  # not even root can create a folder there
        own.train(own.prepare(todo, "/proc/soi-train"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_impossible_options_and_models_are_named(place, tmp_path):
    for change in ({"epochs": 1}, {"epochs": 65}, {"seeds": (0, 0)}, {"seeds": tuple("[0, 1]")}):
        with pytest.raises(ProfileError, match=f"--{next(iter(change)).removesuffix('s')}"):
            own.prepare(request(**change), tmp_path / "new")
    config = json.loads((place / "tiny" / "config.json").read_text(encoding="utf-8"))
    for name, change in (("short", {"max_position_embeddings": 66}), ("decoder", {"model_type": "gpt2"})):
        shutil.copytree(place / "tiny", place / name)
        (place / name / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    for model, message in (
        (place / "short", r"fewer positions than a text may have tokens; found 66 .*--max-length"),
        (place / "decoder", r"this model is a decoder"),
        (place / "tiny" / "config.json", r"config.json: this is a file; expected the folder of a model"),
        (place, r"the encoder has no config.json"),
        ("./absent", r"there is no such model folder"),
    ):
        with pytest.raises(EncoderError, match=message):
            own.prepare(request(model=str(model)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_persian_on_the_english_model_gives_a_caution(tmp_path, monkeypatch, wheels):
    monkeypatch.delenv("SOI_CACHE")
    persian = pd.DataFrame({"text": [f"این کتاب {i} خوب بود" for i in range(20)], "label": [i % 2 for i in range(20)]})
    french = persian.assign(text=[f"la pièce n° {i} était très réussie" for i in range(20)])
    for frame, many in ((persian, 1), (french, 0)):
        datasets = {"a": DatasetSpec(path=str(csv(tmp_path / "a.csv", frame)))}
        todo = own.prepare(own.TrainRequest(datasets), tmp_path / "new")
        cautions = [sentence for sentence in todo.decisions if sentence.startswith("caution")]
        assert len(cautions) == many
        assert all("--model e5" in sentence for sentence in cautions)
