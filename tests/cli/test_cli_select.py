"""`soi select`: ids of a subset, or the part of a person's own file that holds it, character by character."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic
from own_data import run_main

from soi_lib import SOI, TrainingDynamics, categorize, select
from soi_lib.data.match import match
from soi_lib.errors import AlignmentError, CorpusError

N = 60


@pytest.fixture
def soi(monkeypatch, capsys):
    """The command in this process: exit code, standard output, standard error."""
    return lambda *words: run_main(monkeypatch, capsys, *words)


@pytest.fixture
def dynamics(tmp_path):
    """Dynamics with whole-number ids 100, 101, ... and the file that holds them."""
    made = synthetic.learn(N, 6, classes=3)
    meta = {"label_names": ["no", "maybe", "yes"], "member": "mine"}
    dyn = TrainingDynamics(np.arange(100, 100 + N), made.gold, made.p_gold, made.correct, meta)
    dyn.save(tmp_path / "mine.parquet")
    return dyn, tmp_path / "mine.parquet"


def rows(n: int = N) -> list[tuple[int, str]]:
    """Ids and texts with everything that a separated file finds hard, in another order than the dynamics."""
    hard = (
        "plain",
        'a "quoted" word',
        "two\nlines",
        "comma, tab\tand ; more",
        "été 你好 سلام",
        " spaces ",
        "0.10",
        "NA",
    )
    return [(100 + i, f"{hard[i % len(hard)]} {i}") for i in reversed(range(n))]


def test_ids_are_those_of_the_library(soi, dynamics, tmp_path):
    dyn, path = dynamics
    expected = select(dyn, [SOI.UNE, SOI.FRGE_1], n=6, seed=4)
    code, out, err = soi("select", path, "UNE", "frge_1", "--n", 6, "--seed", 4)
    assert (code, err) == (0, "")
    assert out.split() == [str(i) for i in expected]
    assert soi("select", path, "UNE,FRGE_1", "-n", 6, "--seed", 4)[1] == out
    told = json.loads(soi("select", path, "hard", "--control", "random", "--fraction", 0.2, "--json")[1])
    assert told["ids"] == select(dyn, "hard", control="random", fraction=0.2).tolist()
    assert (told["n"], told["control"]) == (12, "random")
    assert sum(told["labels"].values()) == 12
    assert set(told["labels"]) == {"no", "maybe", "yes"}


def test_balance_takes_equally_many_of_every_label(soi, dynamics):
    told = json.loads(soi("select", dynamics[1], "easy", "--fraction", 0.9, "--n", 9, "--balance", "--json")[1])
    assert told["labels"] == {"no": 3, "maybe": 3, "yes": 3}


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".txt", lambda p: [int(x) for x in p.read_text().split()]),
        (".csv", lambda p: pd.read_csv(p)["id"].tolist()),
        (".json", lambda p: json.loads(p.read_text())),
        (".parquet", lambda p: pd.read_parquet(p)["id"].tolist()),
    ],
)
def test_ids_go_to_a_file_that_is_not_replaced_unasked(soi, dynamics, tmp_path, suffix, read):
    dyn, path = dynamics
    out = tmp_path / f"ids{suffix}"
    code, shown, err = soi("select", path, "FRGE_1", "--out", out)
    assert (code, shown.strip()) == (0, str(out))
    assert read(out) == select(dyn, SOI.FRGE_1).tolist()
    assert "ids" in err
    before = out.read_bytes()
    code, _, err = soi("select", path, "UNE", "--out", out)
    assert code == 2
    assert "--force" in err
    assert out.read_bytes() == before
    assert soi("select", path, "UNE", "--out", out, "--force", "--quiet")[::2] == (0, "")
    assert read(out) == select(dyn, SOI.UNE).tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_copy_of_a_table_holds_the_very_characters(soi, dynamics, tmp_path, suffix, separator, end):
    dyn, path = dynamics
    quoted = [f'"{t.replace(chr(34), chr(34) * 2)}"' if i % 2 or set(t) & set('",\n\t') else t for i, t in rows()]
    records = [separator.join((t, "x", str(i))) + end for (i, _), t in zip(rows(), quoted, strict=True)]
    source, out = tmp_path / f"mine{suffix}", tmp_path / f"part{suffix}"
    head = "\ufeff" + separator.join(("text", "why", "key")) + end
    source.write_bytes((head + "".join(records).removesuffix(end)).encode())  # the last line without an end
    code, _, err = soi("select", path, "UNE", "ELE", "--from", source, "--id", "key", "--out", out)
    assert code == 0
    assert "column 'key'" in err
    kept = set(select(dyn, [SOI.UNE, SOI.ELE]).tolist())
    assert 0 < len(kept) < N
    assert out.read_bytes().decode() == head + "".join(
        r for (i, _), r in zip(rows(), records, strict=True) if i in kept
    )


def test_a_copy_of_json_lines_and_of_parquet(soi, dynamics, tmp_path):
    dyn, path = dynamics
    kept = set(select(dyn, "ambiguous").tolist())
    lines = [json.dumps({"text": t, "nested": {"a": [i]}, "id": i}, ensure_ascii=i % 2 == 0) + "\n" for i, t in rows()]
    source, out = tmp_path / "mine.jsonl", tmp_path / "part.jsonl"
    source.write_text("".join(lines), encoding="utf-8")
    assert soi("select", path, "ambiguous", "--from", source, "--out", out)[0] == 0
    assert out.read_text(encoding="utf-8") == "".join(x for (i, _), x in zip(rows(), lines, strict=True) if i in kept)

    frame = pd.DataFrame(rows(), columns=["guid", "text"])[["text", "guid"]].assign(weight=np.float32(0.1))
    source, out = tmp_path / "mine.parquet2.parquet", tmp_path / "part.parquet"
    frame.to_parquet(source, index=False, compression="zstd")
    assert soi("select", path, "ambiguous", "--from", source, "--out", out)[0] == 0
    expected = frame[frame["guid"].isin(kept)].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected)
    assert pq.read_schema(out).equals(pq.read_schema(source), check_metadata=True)
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"


def test_row_numbers_stand_for_ids_where_a_file_has_none(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na,0\nb,1\nc,0\n")
    assert match(path, [2, 0]).rows.tolist() == [2, 0]
    assert match(path, ["000001"]).rows.tolist() == [1]  # as the library numbers the rows of a file
    assert match(path, [1]).by == "row numbers from 0"
    with pytest.raises(AlignmentError, match=r"1 of the 2 ids .* found '3' first"):
        match(path, [0, 3])


def test_ids_of_another_type_are_compared_as_text(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": 7, "t": "a"}\n{"id": 8.0, "t": "b"}\n{"id": null, "t": "c"}\n{"id": null, "t": "d"}\n')
    assert match(path, ["7", "8"], "id").rows.tolist() == [0, 1]
    assert match(path, [8], "id").values(["t"])["t"].tolist() == ["b"]
    padded = tmp_path / "padded.csv"
    padded.write_text("id,t\n007,a\n008,b\n")
    with pytest.raises(AlignmentError, match=r"found '7' in the dynamics and '007' in the file"):
        match(padded, [7, 8])


def test_faults_of_the_file_are_named(soi, dynamics, tmp_path):
    _, path = dynamics
    twice = tmp_path / "twice.csv"
    twice.write_text("id,t\n100,a\n101,b\n100,c\n")
    with pytest.raises(CorpusError, match=r"twice\.csv: the id '100' is used twice; found it in row 1 .* and row 3 "):
        match(twice, [100], "id")
    assert match(twice, [2]).by == "row numbers from 0"  # a column that is only called so cannot serve
    header_twice = tmp_path / "header_twice.csv"
    header_twice.write_text("id,id\n100,a\n")
    with pytest.raises(CorpusError, match="appears twice"):
        match(header_twice, [100], "id")
    with pytest.raises(CorpusError, match=r"there is no column 'key'. Next: .*"):
        match(twice, [100], "key")
    out = tmp_path / "part.csv"
    some = tmp_path / "some.csv"
    some.write_text("id,t\n100,a\n")
    full = tmp_path / "full.csv"
    full.write_text("id\n" + "".join(f"{i}\n" for i, _ in rows()))
    header = tmp_path / "header.csv"
    header.write_text("id,t\n")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("id,t\n100,été\n".encode("latin-1"))
    for words, message in (
        (("--from", some, "--out", out), "ids are not in the file (column 'id')"),
        (("--from", header, "--out", out), "ids are not in the file"),
        (("--from", latin, "--out", out), "latin.csv line 2: the file is not UTF-8"),
        (("--from", some), "give --out NAME.csv"),
        (("--from", full, "--out", tmp_path / "part.jsonl"), "a copy keeps the format"),
        (("--from", tmp_path / "none.csv", "--out", out), "no such file"),
        (("--id", "key"), "give the file with --from"),
        (("--out", tmp_path / "ids.xlsx"), "expected .txt .csv .json .parquet"),
        (("--n", 10_000), "too few examples"),
        (("--member", "fr"), "--member chooses in a run's folder"),
    ):
        code, shown, err = soi("select", path, "UNE", "ELE", *words)
        assert (code, shown) == (2, ""), words
        assert message in err, words
        assert len(err.strip().splitlines()) == 1
    assert not out.exists()
    for words, message in (((), "no category was given"), (("UEN",), "did you mean 'UNE'")):
        code, _, err = soi("select", path, *words)
        assert code == 2
        assert message in err


def test_a_file_is_never_replaced_by_its_own_copy(soi, dynamics, tmp_path):
    _, path = dynamics
    source = tmp_path / "mine.csv"
    source.write_text("id\n" + "".join(f"{i}\n" for i, _ in rows()))
    before = source.read_bytes()
    code, _, err = soi("select", path, "UNE", "--from", source, "--out", source, "--force")
    assert code == 2
    assert "would replace the file that it is made from" in err
    assert source.read_bytes() == before


def test_a_run_gives_its_member(soi, dynamics, tmp_path):
    dyn, path = dynamics
    folder = tmp_path / "run" / "dynamics"
    folder.mkdir(parents=True)
    (folder / "mine.parquet").write_bytes(path.read_bytes())
    expected = "".join(f"{i}\n" for i in dyn.ids[categorize(dyn) == SOI.UNE])
    assert soi("select", tmp_path / "run", "UNE")[1] == expected
    (folder / "yours.parquet").write_bytes(path.read_bytes())
    assert "found mine, yours. Next: choose one with --member" in soi("select", tmp_path / "run", "UNE")[2]
    assert soi("select", tmp_path / "run", "UNE", "--member", "mine")[1] == expected
    assert "did you mean 'mine'" in soi("select", tmp_path / "run", "UNE", "--member", "mime")[2]
    assert "this directory is no run" in soi("select", tmp_path / "run" / "dynamics", "UNE")[2]


def test_every_reading_command_takes_a_run(soi, dynamics, tmp_path):
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
    assert soi("categorize", first)[1] == soi("categorize", path)[1]
    assert soi("compare", first, second, "--member", "mine")[1] == soi("compare", path, path)[1]
    assert soi("map", first, "--out", tmp_path / "map.csv")[0] == 0
    code, _, err = soi("categorize", folder)
    assert code == 2
    assert f"found 2. Next: give one: {first} (mine alone, seed 0), " in " ".join(err.split())
    (folder / "runs.json").write_text(json.dumps({"runs": index[:1]}))
    assert soi("categorize", folder)[1] == soi("categorize", path)[1]


def test_other_tools_files_are_told_apart(soi, tmp_path):
    (tmp_path / "log.csv").write_text("id,epoch,gold,correct\n")
    epochs = tmp_path / "cartography" / "training_dynamics" / "dynamics_epoch_0.jsonl"
    epochs.parent.mkdir(parents=True)
    epochs.write_text("{}\n")
    for place in (tmp_path / "log.csv", tmp_path / "cartography", epochs):
        code, _, err = soi("categorize", place)
        assert code == 2
        assert "read_table" in err


def test_suspects_stand_with_the_ids_and_texts_of_the_file(soi, dynamics, tmp_path):
    dyn, path = dynamics
    source = tmp_path / "mine.csv"
    pd.DataFrame(
        [(100 + i, "no", f"opinion number {i}") for i in range(N + 7)], columns=["id", "label", "opinion"]
    ).to_csv(source, index=False)
    code, _, err = soi("label-issues", path, "--from", source, "--out", tmp_path / "ranked.csv")
    assert code == 0
    assert "text from 'opinion'" in err  # no known name: the longest texts
    assert f"7 of its {N + 7} rows were not trained on" in err
    ranked = pd.read_csv(tmp_path / "ranked.csv")
    assert set(ranked["id"]) == set(dyn.ids)
    assert (ranked["opinion"] == [f"opinion number {i - 100}" for i in ranked["id"]]).all()
    code, out, err = soi("label-issues", path)
    assert "suggested" not in out  # three classes and no logits
    assert "no other label is suggested" in err


def test_the_same_in_a_process_of_its_own(dynamics):
    command = [sys.executable, "-m", "soi_lib.cli", "select", str(dynamics[1]), "UNE"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.split() == [str(i) for i in select(dynamics[0], SOI.UNE)]
