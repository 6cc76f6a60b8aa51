"""Rows of one's own: what is guessed is said, what is held out is the same every time, what cannot be is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from authors_data import as_parquet, class_label_folder, tiny_bert
from fake_hub import COMMIT, serve
from own_data import csv, rows

from soi_lib.data.own import Given, hub_name, read_own
from soi_lib.errors import CorpusError, EncoderError, OutputExistsError, ProfileError, SoiError, StoreError
from soi_lib.runs import own
from soi_lib.runs.run import do_run


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A cache of its own and a tiny model."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_CACHE", str(folder / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        tiny_bert(folder / "tiny")
        yield folder


def wish(place, *members: Given, **values) -> own.Wish:
    return own.Wish(members=members, model=str(place / "tiny"), **({"epochs": 2} | values))


def finished(todo: own.Undertaking) -> own.Undertaking:
    """Write the folder and do its runs in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "run_all", lambda specs, store, **_: [do_run(spec, store) for spec in specs])
        own.train(todo, command="soi train --as-in-the-test")
    return todo


def test_columns_are_guessed_and_every_guess_is_said(tmp_path):
    path = csv(tmp_path / "mine.csv", rows(40).rename(columns={"text": "Text"}).assign(idx=range(100, 140)))
    found = read_own(Given("mine", str(path)))
    assert found.said[:3] == (
        'text column: "Text" (guessed; give --text to choose)',
        'label column: "sentiment" (guessed; give --label to choose)',
        'id column: "idx" (guessed; give --id to choose)',
    )
    assert found.corpus.labels == ("0", "4")
    assert {i.split("/")[1] for i in found.corpus.splits["train"].ids} <= {str(i) for i in range(100, 140)}
    named = read_own(Given("mine", str(path), text="Text", label="sentiment", id="idx"))
    assert [s for s in named.said if "guessed" in s] == []
    assert named.corpus.fingerprint == found.corpus.fingerprint


def test_rows_held_out_are_a_fifth_balanced_and_the_same_in_any_order(tmp_path):
    frame = rows(200).assign(id=range(200))
    frame.loc[150:, "text"] = frame.loc[:49, "text"].to_numpy()  # repeated texts stay on one side
    one = read_own(Given("a", str(csv(tmp_path / "one.csv", frame))))
    two = read_own(Given("a", str(csv(tmp_path / "two.csv", frame.sample(frac=1, random_state=3)))))
    assert one.corpus.fingerprint == two.corpus.fingerprint
    test, train = one.rows["test"], one.rows["train"]
    assert 30 <= len(test) <= 50
    assert set(test["text"]) & set(train["text"]) == set()
    assert abs((test["label"] == "4").mean() - 0.5) < 0.08
    assert any(f"{len(test)} of 200 rows" in s and "hash" in s for s in one.said)
    assert any("training texts occur more than once" in s for s in one.said)


def test_the_forms_of_one_table_are_one_corpus(tmp_path):
    frame = rows(40, labels=("no", "yes")).assign(id=[f"k{i}" for i in range(40)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    mixed = "".join(line + ("\n", "\r\n", "\r")[i % 3] for i, line in enumerate(lines))
    (tmp_path / "mixed.csv").write_bytes(mixed.encode())
    files = sorted(p for p in tmp_path.iterdir())
    assert len(files) == 6
    assert len({read_own(Given("a", str(p))).corpus.fingerprint for p in files}) == 1


def test_pairs_and_test_and_ood_files(tmp_path):
    frame = rows(30).rename(columns={"text": "premise", "sentiment": "label"}).assign(hypothesis="so it is")
    train, test = csv(tmp_path / "train.csv", frame[:20]), csv(tmp_path / "t.csv", frame[20:26])
    ood = csv(tmp_path / "o.csv", frame[26:])
    found = read_own(Given("nli", str(train), test=str(test), ood=str(ood)))
    assert found.corpus.paired
    assert 'text pair column: "hypothesis" (guessed; give --text-pair to choose)' in found.said
    assert {s: len(r) for s, r in found.rows.items()} == {"train": 20, "test": 6, "ood": 4}
    assert found.origin == "train.csv, test t.csv, ood o.csv"
    folder = tmp_path / "folder"
    folder.mkdir()
    csv(folder / "train.csv", frame[:20]), csv(folder / "dev.csv", frame[20:26])
    held = read_own(Given("nli", str(folder)))
    assert {s: len(r) for s, r in held.rows.items()} == {"train": 20, "test": 6}
    assert any("those of dev.csv are the test split" in s for s in held.said)


def test_rows_are_left_out_only_when_asked(tmp_path):
    frame = rows(40)
    bad = pd.concat([frame.astype(object), pd.DataFrame({"text": ["", "fine"], "sentiment": [0, ""]}, dtype=object)])
    path = csv(tmp_path / "a.csv", bad)
    with pytest.raises(CorpusError, match=r"row 41 has no text; found '' in column 'text', 1 such rows.*--drop empty"):
        read_own(Given("a", str(path)))
    found = read_own(Given("a", str(path), drop=("empty",)))
    assert sum(map(len, found.rows.values())) == 40
    assert any("left out: 2 rows of a.csv without text or label" in s for s in found.said)
    test = csv(tmp_path / "t.csv", pd.concat([frame[:3], rows(4, start=90, labels=(0, 7))]))
    with pytest.raises(CorpusError, match=r"t.csv: row 5 has a label that the training rows have not; found '7', 2"):
        read_own(Given("a", str(path), test=str(test), drop=("empty",)))
    with pytest.raises(CorpusError, match=r"t.csv: the text of row 1 stands among the train rows too; found 3 such"):
        read_own(Given("a", str(path), test=str(test), drop=("empty", "unknown-labels")))
    found = read_own(Given("a", str(path), test=str(test), drop=("empty", "unknown-labels", "duplicates")))
    assert len(found.rows["test"]) == 2
    assert sum("left out" in s for s in found.said) == 3


def test_ids_that_cannot_serve(tmp_path):
    frame = rows(20).to_dict("records")
    path = tmp_path / "a.jsonl"

    def write(ids):
        lines = [json.dumps(row | {"id": i}) for row, i in zip(frame, ids, strict=True)]
        path.write_text("\n".join(lines), encoding="utf-8")

    for ids, message in (
        ([*range(19), "x"], r"ids in column 'id' are of several types; found whole number in row 1 and text in row 20"),
        ([*range(19), 3], r"the id 3 is used twice; found it in rows 4 and 20"),
        ([*range(19), None], r"row 20 has no id"),
        ([*range(19), 1.5], r"several types; found whole number in row 1 and float in row 20"),
    ):
        write(ids)
        with pytest.raises(CorpusError, match=message):
            read_own(Given("a", str(path), id="id"))
        guessed = read_own(Given("a", str(path)))  # not named: row numbers, and said
        assert any("row numbers" in s and 'column "id" cannot serve' in s for s in guessed.said)
        assert set(guessed.rows["train"]["id"]) <= {f"{i:06d}" for i in range(20)}


HUB = """
import json, sys
from pathlib import Path
from soi_lib.data.own import Given
from soi_lib.runs import own
new, pinned = [
    own.prepare(own.Wish((Given("t", f"someone/tweets{at}", drop=DROP),), f"someone/tiny{at}", 2), sys.argv[1])
    for at in ("", "@COMMIT")
]
for todo in (new, pinned):
    (member,) = todo.members
    (encoder,) = todo.profile.encoders.values()
    print(json.dumps([member.corpus.fingerprint, member.origin, encoder.revision, todo.encoder.name]))
"""


def test_a_data_set_and_a_model_of_the_hub(tmp_path):
    every = ("empty", "duplicates", "unknown-labels")
    data = as_parquet("twitter", tmp_path / "hub" / "datasets" / "someone" / "tweets" / "data")
    for file in list(data.iterdir()):  # the names under which the hub's library finds splits of any name
        file.rename(data / f"{file.stem}-00000-of-00001.parquet")
    tiny_bert(tmp_path / "hub" / "models" / "someone" / "tiny")
    script = HUB.replace("COMMIT", COMMIT).replace("DROP", str(every))
    with serve(tmp_path / "hub") as (address, _):
        env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    new, pinned = map(json.loads, done.stdout.splitlines())
    assert new == pinned  # without a commit: the newest, written down
    assert new[1:] == [f"someone/tweets@{COMMIT}", COMMIT, f"someone--tiny-{COMMIT}"]
    local = read_own(Given("t", str(as_parquet("twitter", tmp_path / "local")), drop=every))
    assert local.corpus.splits["train"].text == own_texts(tmp_path / "local")
    assert {s: len(r) for s, r in local.rows.items()} == {"train": 40, "validation": 8, "test": 16, "ood": 18}
    assert local.corpus.fingerprint == new[0]


def own_texts(folder) -> list[str]:
    """The training texts of a folder in the order of their row numbers."""
    return pd.read_parquet(folder / "train.parquet")["text"].tolist()


def test_label_names_of_a_saved_data_set_are_kept_and_hubs_out_of_reach_are_named(tmp_path):
    every = ("empty", "duplicates", "unknown-labels")
    found = read_own(Given("s", str(class_label_folder("sentiment", tmp_path / "saved")), drop=every))
    assert found.corpus.labels == ("negative", "positive")
    with pytest.raises(CorpusError, match=r"someone/tweets at its newest commit: cannot be brought from the hub"):
        read_own(Given("t", "someone/tweets"))
    with pytest.raises(EncoderError, match=r"mnilm: cannot be brought from the hub.*did you mean 'minilm'"):
        own._encoder("mnilm", None)
    with pytest.raises(CorpusError, match=r"a commit has 7 to 40 hex digits; found 'main'"):
        read_own(Given("t", "someone/tweets@main"))


def test_what_reads_as_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert hub_name("someone/tweets") == ("someone/tweets", None)
    assert hub_name("someone/tweets@1234567") == ("someone/tweets", "1234567")
    for path in ("data/tweets", "someone/tweets.csv", "../tweets", "/a/b", "tweets.csv", "data"):
        assert hub_name(path) is None


@pytest.fixture(scope="module")
def folder(place):
    """Two members, two seeds, all runs done."""
    a, b = csv(place / "a.csv", rows(40)), csv(place / "b.csv", rows(30, member="yelp"))
    ood = csv(place / "ood.csv", rows(10, start=500))
    members = (Given("a", str(a), ood=str(ood)), Given("b", str(b)))
    finished(own.prepare(wish(place, *members, seeds=(0, 1)), place / "done"))
    return place / "done"


def again(place, **values):
    members = (Given("a", str(place / "a.csv"), ood=str(place / "ood.csv")), Given("b", str(place / "b.csv")))
    return wish(place, *values.pop("members", members), **({"seeds": (0, 1)} | values))


def test_the_folder_explains_itself(place, folder):
    index = own.read_index(folder)
    assert [(r["setting"], r["seed"], r["state"]) for r in index["runs"]] == [
        (setting, seed, "done") for setting in (["a"], ["b"], ["a", "b"]) for seed in (0, 1)
    ]
    results, _ = own.open_own(folder)
    for row in index["runs"]:
        for member, path in row["dynamics"].items():
            dynamics = results.run(row["setting"], row["seed"]).dynamics(member)
            assert (folder / path).is_file()
            assert dynamics.meta.comparison == "user"
            assert dynamics.meta.label_names == ("0", "4")
            texts = own.rows_of(folder, member).set_index("id")
            original = pd.read_csv(place / f"{member}.csv")
            for key, gold in zip(dynamics.ids, dynamics.gold, strict=True):
                assert texts.loc[key, "text"] == original["text"][int(key.split("/")[1])]
                assert texts.loc[key, "label"] == dynamics.meta.label_names[gold]
    assert results.splits("a") == ["test", "ood"]
    assert results.splits("b") == ["test"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(row["dynamics"][row["setting"][0]] in readme for row in index["runs"])
    assert "soi train --as-in-the-test" in readme
    assert "a and b have the same labels, so they share a head" in readme


def test_the_same_again_is_done_and_more_seeds_are_an_addition(place, folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    todo = own.prepare(again(place), folder)
    assert todo.finished() == 6
    finished(todo)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    more = own.prepare(again(place, seeds=(0, 1, 2)), folder)
    assert more.finished() == 6
    assert len(more.settings) * len(more.profile.seeds) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"epochs 2, now 3"),
        ({"seeds": (1,)}, r"seeds 0, 1, now 1"),
        ({"learning_rate": 1e-3}, r"learning rate 5e-05, now 0.001"),
        ({"members": None}, r"members a, b, now a"),
    ],
)
def test_other_settings_are_refused_and_named(place, folder, change, message):
    if "members" in change:
        change = {"members": (Given("a", str(place / "a.csv"), ood=str(place / "ood.csv")),)}
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(OutputExistsError, match=rf"made with other settings; found .*{message}.*--force"):
        own.prepare(again(place, **change), folder)
    assert own.prepare(again(place, **change), folder, force=True).begun
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_other_rows_under_the_same_name_are_refused(place, folder):
    changed = csv(place / "changed.csv", rows(41))
    members = (Given("a", str(changed), ood=str(place / "ood.csv")), Given("b", str(place / "b.csv")))
    with pytest.raises(OutputExistsError, match=r"other rows of a.*--force"):
        own.prepare(again(place, members=members), folder)


def test_a_folder_can_be_moved(place, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "moved")
    assert own.prepare(again(place), tmp_path / "moved").finished() == 6
    assert len(own.open_own(tmp_path / "moved")[0].runs) == 6


def test_an_unfinished_folder_is_told_from_a_finished_one(place, folder, tmp_path):
    import shutil

    part = tmp_path / "part"
    shutil.copytree(folder, part)
    for row in own.read_index(part)["runs"]:
        if row["seed"] == 1 and row["setting"] == ["b"]:
            shutil.rmtree(part / row["folder"])
    results, _ = own.open_own(part)
    assert {run.seed for run in results.runs} == {0}  # seed 1 lacks a run: its other runs are not compared with
    shutil.rmtree(part / "runs")
    with pytest.raises(StoreError, match=r"the runs are not finished; found 0 of 6. Next: soi train --as-in-the-test"):
        own.open_own(part)
    (part / "runs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match=r"runs.json: cannot be read"):
        own.open_own(part)


def test_folders_that_cannot_be_written_to(place, tmp_path):
    todo = again(place)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(SoiError, match="a file stands where a folder should be written"):
        own.prepare(todo, tmp_path / "file")
    with pytest.raises(OutputExistsError, match=r"the folder holds something else; found file"):
        own.prepare(todo, tmp_path)
    with pytest.raises(SoiError, match=r"could not write; found Not a directory"):
        own.train(own.prepare(todo, tmp_path / "file" / "below"))
    with pytest.raises(SoiError, match=r"could not write"):  # nobody may make a folder there, root included
        own.train(own.prepare(todo, "/proc/soi-train"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_sizes_and_models_that_cannot_be(place, tmp_path):
    for change, error, message in (
        ({"epochs": 1}, ProfileError, r"--epochs: dynamics need at least two epochs; found 1, expected 2 to 64"),
        ({"epochs": 65}, ProfileError, r"--epochs: a history holds at most 64 epochs; found 65"),
        ({"seeds": (0, 0)}, ProfileError, r"--seed: .*found 0, 0"),
    ):
        with pytest.raises(error, match=message):
            own.prepare(again(place, **change), tmp_path / "new")
    values = vars(again(place))
    for model, message in (
        (place / "a.csv", r"a file stands where the folder of a model is expected"),
        (place / "cache", r"the encoder has no config.json"),
        ("./absent", r"there is no such model folder"),
    ):
        with pytest.raises(EncoderError, match=message):
            own.prepare(own.Wish(**(values | {"model": str(model)})), tmp_path / "new")
    assert not (tmp_path / "new").exists()
