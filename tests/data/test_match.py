"""A file beside a training: the rows that were trained on are found where they are now, or the file is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_data import csv, run_main

from soi_lib import TrainingDynamics
from soi_lib.data.load import load_dataset
from soi_lib.data.match import check_same_rows, match, save_trained_rows, trained_rows
from soi_lib.data.places import DatasetSpec
from soi_lib.errors import AlignmentError

N = 30


def table(n: int = N) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"opinion number {i}" for i in range(n)], "label": ["no", "yes"] * (n // 2)})


def trained(folder: Path, path: Path, **values) -> Path:
    """The dynamics file of a run on a file, as `soi train` leaves it: beside it what the run keeps of its rows."""
    corpus = load_dataset("mine", DatasetSpec(path=str(path), strict=False, **values)).corpus
    split = corpus.splits["train"]
    rng = np.random.default_rng(0)
    meta = {"label_names": list(corpus.labels), "member": "mine"}
    p_gold = rng.random((4, len(split)))
    dynamics = TrainingDynamics(split.ids, split.label, p_gold, p_gold > 0.5, meta)
    (folder / "dynamics").mkdir(parents=True)
    dynamics.save(folder / "dynamics" / "mine.parquet")
    save_trained_rows(folder / "rows" / "mine.parquet", corpus, split)
    return folder / "dynamics" / "mine.parquet"


def texts(dynamics: Path, path: Path) -> dict[str, str]:
    """The text that a file has for each id, by what the run keeps of its rows."""
    ids = TrainingDynamics.load(dynamics).ids
    found = match(path, ids, trained=trained_rows(dynamics))
    return dict(zip(ids, found.values(found.text)[found.text[0]], strict=True))


def test_ids_are_looked_for_as_they_were_made(tmp_path):
    """Row numbers stay row numbers where a column of ids could not serve, or came later."""
    frame = table().assign(id=[*range(N - 1), 3])
    path = csv(tmp_path / "a.csv", frame)
    dynamics = trained(tmp_path / "run", path)
    assert texts(dynamics, path) == {i: f"opinion number {int(i)}" for i in TrainingDynamics.load(dynamics).ids}
    assert texts(dynamics, csv(tmp_path / "b.csv", table().assign(id=range(100, 100 + N)))) == texts(dynamics, path)
    named = trained(tmp_path / "named", csv(tmp_path / "c.csv", table().assign(id=[f"0{i}" for i in range(N)])))
    ids = list(trained_rows(named).rows)[5:7]
    assert all(i.startswith("0") for i in ids)
    shuffled = csv(tmp_path / "d.csv", pd.read_csv(tmp_path / "c.csv", dtype=str).sample(frac=1, random_state=0))
    found = match(shuffled, ids, trained=trained_rows(named))
    assert found.by == "column 'id'"
    assert found.keys == tuple(ids)
    assert found.values(["text"])["text"].tolist() == [f"opinion number {int(i)}" for i in ids]


def test_a_file_that_was_sorted_or_has_more_rows_is_matched_by_text(tmp_path):
    path = csv(tmp_path / "a.csv", table())
    dynamics = trained(tmp_path / "run", path)
    before = texts(dynamics, path)
    other = pd.DataFrame({"text": ["one more", "another"], "label": "no"})
    for changed in (
        table().sort_values("text", ascending=False),
        pd.concat([other, table()]),
        table().drop(index=[i for i in range(N) if f"{i:06d}" not in before]),
        table().rename(columns={"label": "marked"}),
        table()[["label", "text"]],
    ):
        assert texts(dynamics, csv(tmp_path / "b.csv", changed)) == before
    ids = TrainingDynamics.load(dynamics).ids
    csv(tmp_path / "b.csv", table().sample(frac=1, random_state=0))
    assert "text and label" in match(tmp_path / "b.csv", ids, trained=trained_rows(dynamics)).by


def test_a_file_that_was_edited_is_refused_and_the_first_row_is_named(tmp_path):
    path = csv(tmp_path / "a.csv", table())
    dynamics = trained(tmp_path / "run", path)
    row = int(TrainingDynamics.load(dynamics).ids[0])
    edited = table()
    edited.loc[row, "text"] += "!"
    with pytest.raises(AlignmentError, match=rf"1 of the 24 rows .*no row with the text of id '{row:06d}'"):
        texts(dynamics, csv(tmp_path / "b.csv", edited))
    edited = table()
    edited.loc[row, "label"] = "never"
    with pytest.raises(AlignmentError, match=rf"the label 'never' for id '{row:06d}', which was trained as"):
        texts(dynamics, csv(tmp_path / "b.csv", edited))
    with pytest.raises(AlignmentError, match="24 of the 24 rows are not as they were trained on"):
        texts(dynamics, csv(tmp_path / "b.csv", table().assign(text="other")))


def test_equal_rows_are_each_found_once(tmp_path):
    frame = pd.concat([table(20), table(10)], ignore_index=True)
    path = csv(tmp_path / "a.csv", frame)
    dynamics = trained(tmp_path / "run", path)
    turned = csv(tmp_path / "b.csv", frame[::-1])
    ids = TrainingDynamics.load(dynamics).ids
    found = match(turned, ids, trained=trained_rows(dynamics))
    assert len(set(found.rows)) == len(ids)
    assert texts(dynamics, turned) == texts(dynamics, path)


def test_a_file_is_read_as_it_was_for_training(tmp_path):
    """Separator, encoding, header and the names of labels are remembered."""
    body = "".join(f"caf\xe9 {i}~{i % 2}.0\n" for i in range(N))
    path = tmp_path / "a.csv"
    path.write_bytes(body.encode("cp1252"))
    options = {"separator": "~", "encoding": "cp1252", "header": False, "text": "1", "label": "2"}
    dynamics = trained(tmp_path / "run", path, **options, labels={"0": "no", "1.0": "yes"})
    assert texts(dynamics, path)[TrainingDynamics.load(dynamics).ids[0]].startswith("caf\xe9")
    found = match(path, TrainingDynamics.load(dynamics).ids[:3], trained=trained_rows(dynamics))
    assert found.copy(tmp_path / "part.csv") == 3
    kept = (tmp_path / "part.csv").read_bytes().decode("cp1252").splitlines()
    assert len(kept) == 3
    assert set(kept) < set(body.splitlines())


@pytest.mark.parametrize("form", ["json", "jsonl", "csv.gz", "txt", "utf-16"])
def test_a_copy_keeps_the_form_of_the_file(tmp_path, form):
    frame = table().assign(extra=[{"nested": i} if form.startswith("json") else f'a "{i}"' for i in range(N)])
    suffix = "tsv" if form == "utf-16" else form
    path, part = tmp_path / f"a.{suffix}", tmp_path / f"part.{suffix}"
    if form.startswith("json"):
        frame.to_json(path, orient="records", lines=form == "jsonl")
    else:
        frame.to_csv(
            path, index=False, sep="\t" if form != "csv.gz" else ";", encoding="utf-16" if "16" in form else "utf-8"
        )
    assert match(path, [7, 2]).copy(part) == 2
    again = match(part, [0, 1])
    assert again.values(["text"])["text"].tolist() == ["opinion number 2", "opinion number 7"]
    assert again.values(["extra"])["extra"].tolist() == frame["extra"][[2, 7]].tolist()
    assert part.read_bytes()[:2] == path.read_bytes()[:2] or form == "json"
    if form == "json":
        assert json.loads(part.read_text())[0]["extra"] == {"nested": 2}
    if form == "csv.gz":
        assert gzip.decompress(part.read_bytes()).startswith(b"text;label")


def test_runs_on_other_rows_are_not_compared(tmp_path, monkeypatch, capsys):
    one = trained(tmp_path / "one", csv(tmp_path / "a.csv", table()))
    same = trained(tmp_path / "same", csv(tmp_path / "b.csv", table()))
    edited = table().assign(text=[f"opinion numbered {i}" for i in range(N)])
    ids = csv(tmp_path / "c.csv", edited.assign(id=[f"{i:06d}" for i in range(N)]))  # equal ids, equal labels
    other = trained(tmp_path / "other", ids)
    check_same_rows(one, same)
    assert run_main(monkeypatch, capsys, "compare", one, same)[0] == 0
    code, out, err = run_main(monkeypatch, capsys, "compare", one, other)
    assert (code, out) == (2, "")
    assert "ids are different rows in the two runs" in err
    (tmp_path / "alone.parquet").write_bytes(other.read_bytes())  # dynamics from elsewhere: nothing is known
    check_same_rows(one, tmp_path / "alone.parquet")


def test_suspects_show_both_sides_of_a_pair_and_what_a_user_wrote(tmp_path, monkeypatch, capsys):
    frame = table().rename(columns={"text": "q1"}).assign(q2=[f"[/b] and [bold]{i} :warning:" for i in range(N)])
    frame["label"] = ["[/neg]", "\x1b[31mpos"] * (N // 2)
    path = csv(tmp_path / "a.csv", frame)
    dynamics = trained(tmp_path / "run", path)
    monkeypatch.setenv("COLUMNS", "250")
    code, out, err = run_main(monkeypatch, capsys, "label-issues", dynamics, "--from", path, "--top", 3)
    assert code == 0, err
    assert "text from 'q1', 'q2'" in err
    assert out.count("opinion number") == 3
    assert out.count("[/b] and [bold]") == out.count(":warning:") == 3
    assert "[/neg]" in out or "pos" in out
    assert "\x1b" not in out
    sorted_file = csv(tmp_path / "b.csv", frame.sort_values("q1", ascending=False))
    code, again, err = run_main(monkeypatch, capsys, "label-issues", dynamics, "--from", sorted_file, "--top", 3)
    assert code == 0, err
    assert "found by text and label" in err
    assert [line.split("opinion")[1] for line in again.splitlines() if "opinion" in line] == [
        line.split("opinion")[1] for line in out.splitlines() if "opinion" in line
    ]
    code, _, err = run_main(
        monkeypatch, capsys, "select", dynamics, "hard", "--from", sorted_file, "--out", tmp_path / "h.csv"
    )
    assert code == 0, err
    kept = pd.read_csv(tmp_path / "h.csv")
    assert set(map(tuple, kept.to_numpy())) < set(map(tuple, frame.to_numpy()))
