"""Datasets and encoders from folders and from a hub: the authors' columns and splits, errors, and the cache."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from authors_data import as_parquet, tables, tiny_bert
from fake_hub import COMMIT, serve
from own_data import csv, rows

from paper.datasets import load
from soi_lib.data.cache import load_spec
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.errors import CorpusError, SoiError
from soi_lib.models.encoder import EncoderSource, download
from soi_lib.runs.config import load_profile

PAPER = load_profile("paper").corpora


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def at(member: str, folder: Path, **change: object) -> DatasetSpec:
    """Return the description of a member in the paper profile, with a folder in place of the hub."""
    values = PAPER[member].model_dump(exclude={"hub", "revision", "note"}) | {"path": str(folder)} | change
    return DatasetSpec(**values)


def test_missing_labels_and_splits_are_named(tmp_path, cache):
    folder = as_parquet("paraphrase", tmp_path / "mine")
    with pytest.raises(CorpusError, match=r"train.parquet: labels have no name; found 1"):
        load_spec("paraphrase", at("paraphrase", folder, labels={0: "no"}))
    (folder / "test.csv").write_text("a,b")
    with pytest.raises(CorpusError, match=r"several files for 'test'"):
        load_spec("paraphrase", at("paraphrase", folder))
    assert not list(cache.rglob("*.parquet"))


def test_corpora_and_encoders_that_are_elsewhere():
    with pytest.raises(CorpusError, match=r"corpora.fr: .*--only"):
        load_spec("fr", PAPER["fr"])
    for read in (
        lambda: load_spec("paraphrase", PAPER["paraphrase"]),
        lambda: download("bert", EncoderSource(hub="google-bert/bert", revision="86b5e09")),
    ):
        with pytest.raises(SoiError, match=r" at [0-9a-f]{7}: .*HF_HUB_OFFLINE=0"):
            read()


def test_a_corpus_is_cached_and_read_again_when_a_file_changes(tmp_path, cache, caplog):
    folder = as_parquet("yelp", tmp_path / "yelp")
    first = load_spec("yelp", at("yelp", folder))
    again = load("yelp", first.fingerprint)
    assert again.fingerprint == first.fingerprint
    assert again.splits["ood"].text == first.splits["ood"].text
    with pytest.raises(CorpusError, match=r"yelp: the corpus is not in the cache"):
        load("yelp", "0" * 64)
    with pytest.raises(CorpusError, match="unknown dataset"):
        load("yelp")

    (file,) = cache.rglob("yelp-*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="the file cannot be read as Parquet"):
        load("yelp", first.fingerprint)
    assert load_spec("yelp", at("yelp", folder)).fingerprint == first.fingerprint
    assert "again" in caplog.text
    assert load("yelp", first.fingerprint).fingerprint == first.fingerprint

    table = pd.read_parquet(folder / "train.parquet")
    table.assign(text=table["text"] + " more").to_parquet(folder / "train.parquet", index=False)
    changed = load_spec("yelp", at("yelp", folder))
    assert changed.fingerprint != first.fingerprint
    assert load("yelp", first.fingerprint).splits["train"].text == first.splits["train"].text


SCRIPT = """
from soi_lib.data.cache import load_spec
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.models.encoder import EncoderSource, download
from soi_lib.errors import SoiError
from soi_lib.runs import own
place = {"hub": "Shayanvsf/Paraphrase", "revision": "783102a", "labels": {0: "different", 1: "paraphrase"}}
source = DatasetSpec(**place, drop=["duplicates", "empty"], text="sentence1", text_pair="sentence2", label="label")
bert = EncoderSource(hub="google-bert/bert-base-uncased", revision="783102a")
for _ in range(2):
    print(load_spec("paraphrase", source).fingerprint)
    print(download("bert", bert).name, *sorted(file.name for file in download("bert", bert).iterdir()))
for wrong in ({"hub": "Shayanvsf/Nothing"}, {"revision": "0000000"}):
    try:
        load_spec("paraphrase", source.model_copy(update=wrong))
    except SoiError as error:
        print(error)
try:
    download("poor", EncoderSource(hub="google-bert/poor", revision="783102a"))
except SoiError as error:
    print(error)
for more in ({}, {"config": "small"}, {"config": "small", "splits": {"train": "every"}}, {"config": "none"}):
    try:
        found = load_dataset("a", DatasetSpec(hub="someone/words", strict=False, **more))
        print(found.corpus.labels, found.corpus.card.origin, sum(map(len, found.corpus.splits.values())))
    except SoiError as error:
        print(error)
for revision, end in ((None, ""), ("COMMIT", "@COMMIT")):
    words = DatasetSpec(hub="someone/words", config="small", splits={"train": "every"}, revision=revision)
    todo = own.prepare(own.TrainRequest({"a": words}, f"google-bert/bert-base-uncased{end}", 2), "none")
    (encoder,) = todo.profile.encoders.values()
    print(todo.datasets[0].corpus.fingerprint, encoder.revision, todo.encoder.name)
"""


def test_a_hub_is_asked_once_and_gives_the_same_as_a_folder(tmp_path, cache):
    data = tmp_path / "hub" / "datasets" / "Shayanvsf" / "Paraphrase" / "data"
    data.mkdir(parents=True)
    for split, table in tables("paraphrase").items():
        table.to_parquet(data / f"{split}-00000-of-00001-0123abc.parquet", index=False)
    model = tiny_bert(tmp_path / "hub" / "models" / "google-bert" / "bert-base-uncased")
    (model / "pytorch_model.bin").write_bytes(b"not wanted")
    poor = model.with_name("poor")
    poor.mkdir()
    (poor / "config.json").write_text("{}", encoding="utf-8")
    place = tmp_path / "hub" / "datasets" / "someone" / "words"
    place.mkdir(parents=True)
    front = ["---", "configs:"]
    for config in ("small", "large"):
        csv(place / f"{config}.csv", rows(30))
        front += [f"- config_name: {config}", "  data_files:", "  - split: every", f"    path: {config}.csv"]
    (place / "README.md").write_text("\n".join([*front, "---", ""]), encoding="utf-8")
    with serve(tmp_path / "hub") as (address, seen):
        here = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        env = os.environ | here | {"SOI_CACHE": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.replace("COMMIT", COMMIT)],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    local = load_dataset("paraphrase", at("paraphrase", as_parquet("paraphrase", tmp_path / "local"))).corpus
    assert lines[0] == lines[2] == local.fingerprint
    files = "config.json model.safetensors sha256.list tokenizer.json tokenizer_config.json"
    downloaded = f"google-bert--bert-base-uncased-{COMMIT} {files}"
    assert lines[1] == lines[3] == downloaded
    assert lines[4].startswith("Shayanvsf/Nothing at 783102a: cannot be downloaded from the hub; found")
    assert lines[5].startswith("Shayanvsf/Paraphrase at 0000000: cannot be downloaded from the hub; found")
    assert lines[6].startswith(f"google-bert/poor at {COMMIT}: the encoder has no tokenizer.json")
    assert len([one for one in seen if one.startswith("GET") and one.endswith("model.safetensors")]) == 1
    assert not [one for one in seen if "pytorch_model" in one]
    assert [f.name for f in (cache / "encoders").glob("[!.]*")] == [f"google-bert--bert-base-uncased-{COMMIT}"]
    several, unnamed, read, unknown, newest, pinned = lines[7:]  # each hint gives the option of the next attempt
    assert re.search(r"someone/words .*'small'.*--config", several)
    assert re.search(r"no split for 'train'; found every.*--split train=every", unnamed)
    assert read == f"('0', '4') someone/words@{COMMIT} 30"
    assert re.search(r"someone/words .*none.*--config", unknown)
    assert newest == pinned  # without a revision: the newest commit, which is recorded
    assert newest.endswith(f"{COMMIT} google-bert--bert-base-uncased-{COMMIT}")
