"""`soi select`: the ids of a subset, or the rows of the user's own file, value by value."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import synthetic

from soi_lib import SOI, TrainingDynamics, select

N = 60


@pytest.fixture
def dynamics(tmp_path):
    """Dynamics with the integer ids 100, 101, ..., and their file."""
    made = synthetic.learn(N, 6, classes=3)
    meta = {"label_names": ["no", "maybe", "yes"], "member": "mine"}
    dyn = TrainingDynamics(np.arange(100, 100 + N), made.gold, made.p_gold, made.correct, meta)
    dyn.save(tmp_path / "mine.parquet")
    return dyn, tmp_path / "mine.parquet"


def rows() -> list[tuple[int, str]]:
    """Ids and texts that are hard to write to a CSV file, in another order than the dynamics."""
    hard = ("plain", 'a "quoted" word', "two\nlines", "comma, tab\tand ; more", "été 你好 سلام", " spaces ", "0.10")
    return [(100 + i, f"{hard[i % len(hard)]} {i}") for i in reversed(range(N))]


def test_ids_are_those_of_the_library(soi, dynamics, tmp_path):
    dyn, path = dynamics
    expected = select(dyn, [SOI.UNE, SOI.FRGE_1], n=6, seed=4)
    out, err = soi("select", path, "UNE", "frge_1", "--n", 6, "--seed", 4)
    assert err == ""
    assert out.split() == [str(i) for i in expected]
    assert soi("select", path, "UNE,FRGE_1", "-n", 6, "--seed", 4)[0] == out
    subset = json.loads(soi("select", path, "hard", "--control", "random", "--fraction", 0.2, "--json")[0])
    assert subset["ids"] == select(dyn, "hard", control="random", fraction=0.2).tolist()
    assert (subset["n"], subset["control"]) == (12, "random")
    assert sum(subset["labels"].values()) == 12
    assert set(subset["labels"]) == {"no", "maybe", "yes"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_copy_of_a_table_has_the_same_values(soi, dynamics, tmp_path, suffix, separator, end):
    dyn, path = dynamics
    quoted = [f'"{t.replace(chr(34), chr(34) * 2)}"' if i % 2 or set(t) & set('",\n\t') else t for i, t in rows()]
    records = [separator.join((t, "x", str(i))) + end for (i, _), t in zip(rows(), quoted, strict=True)]
    source, out = tmp_path / f"mine{suffix}", tmp_path / f"part{suffix}"
    head = "\ufeff" + separator.join(("text", "why", "key")) + end
    source.write_bytes((head + "".join(records).removesuffix(end)).encode())  # no end of the last line
    _, err = soi("select", path, "UNE", "ELE", "--from", source, "--id", "key", "--out", out)
    assert "column 'key'" in err
    kept = set(select(dyn, [SOI.UNE, SOI.ELE]).tolist())
    assert 0 < len(kept) < N
    written = out.read_bytes().decode()
    assert written.startswith(head)
    assert written.endswith(end)
    read = list(csv.reader(io.StringIO(written.removeprefix(head), newline=""), delimiter=separator))
    assert read == [[text, "x", str(i)] for i, text in rows() if i in kept]


def test_files_of_other_tools_are_recognized(refused, tmp_path):
    (tmp_path / "log.csv").write_text("id,epoch,gold,correct\n")
    epochs = tmp_path / "cartography" / "training_dynamics" / "dynamics_epoch_0.jsonl"
    epochs.parent.mkdir(parents=True)
    epochs.write_text("{}\n")
    for place in (tmp_path / "log.csv", tmp_path / "cartography", epochs):
        refused("read_table", "categorize", place)


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".txt", lambda p: [int(x) for x in p.read_text().split()]),
        (".csv", lambda p: pd.read_csv(p)["id"].tolist()),
        (".json", lambda p: json.loads(p.read_text())),
        (".parquet", lambda p: pd.read_parquet(p)["id"].tolist()),
    ],
)
def test_ids_go_to_a_file(soi, dynamics, tmp_path, suffix, read):
    dyn, path = dynamics
    out = tmp_path / f"ids{suffix}"
    assert soi("select", path, "FRGE_1", "--out", out)[0].strip() == str(out)
    assert read(out) == select(dyn, SOI.FRGE_1).tolist()


def test_mistakes_are_named_and_nothing_is_written(refused, dynamics, tmp_path):
    _, path = dynamics
    out, some, full, latin = (tmp_path / f"{name}.csv" for name in ("part", "some", "full", "latin"))
    some.write_text("id,t\n100,a\n")
    original = "id\n" + "".join(f"{i}\n" for i, _ in rows())
    full.write_text(original)
    latin.write_bytes("id,t\n100,été\n".encode("latin-1"))
    for words, named in (
        (("--from", some, "--out", out), "column 'id'"),
        (("--from", latin, "--out", out), "latin.csv line 2"),
        (("--from", some), "--out"),
        (("--from", full, "--out", tmp_path / "part.jsonl"), "a copy must have the format"),
        (("--from", full, "--out", full, "--force"), "would replace the original file"),
        (("--id", "key"), "--from"),
        (("--out", tmp_path / "ids.xlsx"), "or .txt"),
        (("--n", 10_000), "too few examples"),
        (("UEN",), "did you mean 'UNE'"),
    ):
        refused(named, "select", path, "UNE", "ELE", *words)
    assert not out.exists()
    assert full.read_text() == original


def test_every_reading_command_takes_a_folder_of_runs(soi, refused, dynamics, tmp_path):
    _, path = dynamics
    folder = tmp_path / "made"
    for key, setting in (("k0", ["mine"]), ("k1", ["mine"]), ("k2", ["mine", "yours"])):
        for member in setting:
            file = folder / "runs" / key / "dynamics" / f"{member}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.read_bytes())
    runs = [("k0", ["mine"], 0, "done"), ("k1", ["mine"], 1, "done"), ("k2", ["mine", "yours"], 0, "to do")]
    index = [{"folder": f"runs/{k}", "setting": s, "seed": seed, "state": state} for k, s, seed, state in runs]
    (folder / "runs.json").write_text(json.dumps({"runs": index}))
    first, second = folder / "runs" / "k0", folder / "runs" / "k2"
    assert soi("categorize", first)[0] == soi("categorize", path)[0]
    assert soi("compare", first, second, "--dataset", "mine")[0] == soi("compare", path, path)[0]
    for words, named in (
        ((folder,), "runs/k0"),  # several runs
        ((second,), "--dataset"),
        ((second, "--dataset", "mime"), "did you mean 'mine'"),
        ((first / "dynamics",), "not a run"),
    ):
        refused(named, "categorize", *words)
    (folder / "runs.json").write_text(json.dumps({"runs": index[:1]}))
    assert soi("categorize", folder)[0] == soi("categorize", path)[0]
