"""The training rows are found in the current version of a file, or the file is rejected."""

import csv as csv_module
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from own_data import csv

from soi_lib import TrainingDynamics
from soi_lib.data.load import load_dataset
from soi_lib.data.match import check_same_rows, copy_rows, match, save_trained_rows, trained_rows
from soi_lib.data.places import DatasetSpec
from soi_lib.data.table_files import read_table
from soi_lib.errors import AlignmentError

N = 30


def table(n: int = N) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"opinion number {i}" for i in range(n)], "label": ["no", "yes"] * (n // 2)})


def trained(folder: Path, path: Path, **values) -> Path:
    """Return the dynamics file of a run on a file, next to what `soi train` keeps of its rows."""
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
    """Return the text in a file for each id of a run."""
    ids = TrainingDynamics.load(dynamics).ids
    found = match(path, ids, trained=trained_rows(dynamics))
    return dict(zip(ids, found.values(found.text)[found.text[0]], strict=True))


def test_ids_mean_the_same_as_in_training(tmp_path):
    """Row numbers stay row numbers even if the file has, or gets, a column of ids."""
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


def test_an_edited_file_is_rejected_and_the_first_row_is_named(tmp_path):
    path = csv(tmp_path / "a.csv", table())
    dynamics = trained(tmp_path / "run", path)
    row = int(TrainingDynamics.load(dynamics).ids[0])
    edited = table()
    edited.loc[row, "text"] += "!"
    with pytest.raises(AlignmentError, match=rf"1 of the 24 rows .*no row with the text of id '{row:06d}'"):
        texts(dynamics, csv(tmp_path / "b.csv", edited))
    edited = table()
    edited.loc[row, "label"] = "never"
    with pytest.raises(AlignmentError, match=rf"the label 'never' for id '{row:06d}', which was trained with"):
        texts(dynamics, csv(tmp_path / "b.csv", edited))
    with pytest.raises(AlignmentError, match="none of these examples is in the file"):
        texts(dynamics, csv(tmp_path / "b.csv", table().assign(text="other")))


def test_a_file_is_read_in_the_same_way_as_for_training(tmp_path):
    """Separator, encoding, header and the names of labels are remembered."""
    body = "".join(f"caf\xe9 {i}~{i % 2}.0\n" for i in range(N))
    path = tmp_path / "a.csv"
    path.write_bytes(body.encode("cp1252"))
    options = {"separator": "~", "encoding": "cp1252", "header": False, "text": "1", "label": "2"}
    dynamics = trained(tmp_path / "run", path, **options, labels={"0": "no", "1.0": "yes"})
    assert texts(dynamics, path)[TrainingDynamics.load(dynamics).ids[0]].startswith("caf\xe9")
    found = match(path, TrainingDynamics.load(dynamics).ids[:3], trained=trained_rows(dynamics))
    copy_rows(path, found.table, tmp_path / "part.csv", found.rows)
    kept = (tmp_path / "part.csv").read_bytes().decode("cp1252").splitlines()
    assert len(kept) == 3
    assert set(kept) < set(body.splitlines())


def test_runs_on_other_rows_are_not_compared(soi, refused, tmp_path):
    one = trained(tmp_path / "one", csv(tmp_path / "a.csv", table()))
    same = trained(tmp_path / "same", csv(tmp_path / "b.csv", table()))
    edited = table().assign(text=[f"opinion numbered {i}" for i in range(N)])
    ids = csv(tmp_path / "c.csv", edited.assign(id=[f"{i:06d}" for i in range(N)]))  # equal ids, equal labels
    other = trained(tmp_path / "other", ids)
    check_same_rows(one, same)
    soi("compare", one, same)
    refused("ids are different rows in the two runs", "compare", one, other)
    (tmp_path / "alone.parquet").write_bytes(other.read_bytes())  # dynamics from elsewhere: their rows are unknown
    check_same_rows(one, tmp_path / "alone.parquet")


def test_label_issues_show_both_texts_of_a_pair_unchanged(soi, tmp_path, monkeypatch):
    frame = table().rename(columns={"text": "q1"}).assign(q2=[f"[/b] and [bold]{i} :warning:" for i in range(N)])
    frame["label"] = ["[/neg]", "\x1b[31mpos"] * (N // 2)
    path = csv(tmp_path / "a.csv", frame)
    dynamics = trained(tmp_path / "run", path)
    monkeypatch.setenv("COLUMNS", "250")
    out, err = soi("label-issues", dynamics, "--from", path, "--top", 3)
    assert "text from 'q1', 'q2'" in err
    assert out.count("opinion number") == 3
    assert out.count("[/b] and [bold]") == out.count(":warning:") == 3
    assert "[/neg]" in out or "pos" in out
    assert "\x1b" not in out
    sorted_file = csv(tmp_path / "b.csv", frame.sort_values("q1", ascending=False))
    _, err = soi("select", dynamics, "hard", "--from", sorted_file, "--out", tmp_path / "h.csv")
    kept = pd.read_csv(tmp_path / "h.csv")
    assert set(map(tuple, kept.to_numpy())) < set(map(tuple, frame.to_numpy()))


# --- a corrected copy ------------------------------------------------------------------------------------------------


def hard_file(folder: Path, kind: str) -> Path:
    """Write the rows of `table`, some of them hard to copy, in a format."""
    frame = table()
    frame.loc[0, "text"], frame.loc[1, "text"] = 'a "quoted", word', "two\nlines"
    path = folder / f"a{kind}"
    if kind == ".parquet":
        numbers = frame.assign(label=[i % 2 for i in range(N)], weight=np.float32(0.1))
        numbers.to_parquet(path, index=False, compression="zstd")
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": [v]}) + "\n" for t, v in frame.to_numpy()))
    elif kind == ".json":
        frame.assign(label=[i % 2 for i in range(N)]).to_json(path, orient="records")
    elif kind == "-utf-16.tsv":
        frame.to_csv(path, index=False, sep="\t", encoding="utf-16", quoting=csv_module.QUOTE_ALL)
    elif kind == ".tsv":  # unpaired quotes, a byte-order mark, Windows line ends, a column without a name
        lines = ["\ttext\tlabel", *(f'\t5" disk {i}\t{i % 2}' for i in range(N))]
        path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    else:
        path.write_bytes(gzip.compress(frame.to_csv(index=False, sep=";", quoting=csv_module.QUOTE_ALL).encode()))
    return path


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".json", ".tsv", "-utf-16.tsv", ".csv.gz"])
def test_copies_keep_the_form_of_the_file_and_corrected_ones_differ_only_in_labels(soi, refused, tmp_path, kind):
    path = hard_file(tmp_path, kind)
    dynamics = trained(tmp_path / "run", path)
    before, part = read_table(path), tmp_path / f"part{kind}"
    copy_rows(path, before, part, np.array([2, 7]))
    pd.testing.assert_frame_equal(read_table(part).frame, before.frame.iloc[[2, 7]].reset_index(drop=True))
    assert part.read_bytes()[:1] == path.read_bytes()[:1]  # gzip, the byte-order mark of UTF-16, an array or lines
    if kind == ".parquet":
        assert pq.read_schema(part).equals(pq.read_schema(path), check_metadata=True)
    soi("label-issues", dynamics, "--from", path, "--out", tmp_path / "l.csv")
    listed = pd.read_csv(tmp_path / "l.csv", dtype=str)
    names = sorted(set(listed["given"]))
    listed["corrected"] = listed["given"]
    listed.loc[:2, "corrected"] = [names[1 - names.index(name)] for name in listed["given"][:3]]
    if kind == ".tsv":  # as spreadsheets write integers
        listed["corrected"] += ".0"
    csv(tmp_path / "l.csv", listed)
    out = tmp_path / f"b{kind}"
    words = ("label-issues", dynamics, "--from", path, "--fix", tmp_path / "l.csv", "--out", out)
    shown, err = soi(*words)
    assert shown.strip() == str(out)
    assert f"3 of {len(listed)} reviewed labels changed" in err
    after, changed = read_table(out), sorted(int(i) for i in listed["id"][:3])
    assert [i for i in range(N) if before.frame["label"][i] != after.frame["label"][i]] == changed
    assert sorted(map(type_of, after.frame["label"])) == sorted(map(type_of, before.frame["label"]))
    assert after.frame.drop(columns="label").equals(before.frame.drop(columns="label"))
    refused("--force", *words)  # it exists now
    refused("the original file", *words[:-1], path, "--force")


def type_of(value: object) -> str:
    return f"{type(value).__name__} {type(value[0]).__name__ if isinstance(value, list) else ''}"


def test_a_reviewed_list_that_does_not_fit_is_rejected_in_one_line(refused, tmp_path):
    path = csv(tmp_path / "a.csv", table())
    dynamics = trained(tmp_path / "run", path)
    known = [int(i) for i in TrainingDynamics.load(dynamics).ids[:2]]
    for ids, labels, named in (
        ([*known, 999], ["no"] * 3, "ids were not trained on; found 999"),
        ([known[0]] * 2, ["no"] * 2, f"ids appear twice; found {known[0]:06d}"),
        (known, ["no", "maybe"], "labels are not among the classes; found maybe"),
        (known, ["no", ""], r"not every row has a corrected label; found none in row 2 \(line 3\)"),
        ([999, *known], ["maybe", "no", ""], r"3 problems: \(1\)"),
        (known, None, "there is no column 'corrected'"),
    ):
        csv(tmp_path / "l.csv", pd.DataFrame({"id": ids} | ({} if labels is None else {"corrected": labels})))
        refused(named, "label-issues", dynamics, "--from", path, "--fix", "l.csv", "--out", "b.csv")
        assert not (tmp_path / "b.csv").exists()
    refused("--from FILE and --out NAME", "label-issues", dynamics, "--fix", "l.csv")
