from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from soi_lib.data.table_files import load_files
from soi_lib.errors import CorpusError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "mrpc"
SIZES = {"train": 40, "validation": 8, "test": 16, "ood": 12}


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows to a file of the kind that its suffix names."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as handle:
            table = csv.DictWriter(handle, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)


def mrpc_rows(split: str, n: int) -> list[dict[str, object]]:
    """Rows in the form of the authors' paraphrase set."""
    return [
        {"sentence1": f"{split} said {i}.", "sentence2": f"It was {i}, said {split}.", "label": i % 2, "idx": i}
        for i in range(n)
    ]


# The authors' column names, by data set: a row of each, with words as labels where theirs are words.
FORMS = {
    "paraphrase": (lambda s, i: {"sentence1": f"{s} {i}", "sentence2": "b", "label": i % 2, "idx": i}, ("0", "1")),
    "entailment": (
        lambda s, i: {"premise": f"{s} {i}", "hypothesis": "h", "label": ["entails", "neutral"][i % 2]},
        ("entails", "neutral"),
    ),
    "airlines": (
        lambda s, i: {"text": f"{s} {i}, \"so\"\nit goes", "airline_sentiment": ["positive", "negative"][i % 2]},
        ("negative", "positive"),
    ),
    "twitter": (lambda s, i: {"text": f"{s} {i}", "sentiment": [0, 4][i % 2]}, ("0", "4")),
    "intents": (lambda s, i: {"utt": f"{s} {i} چراغ‌ها", "intent": f"in_{i % 4}"}, ("in_0", "in_1", "in_2", "in_3")),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_the_authors_columns_are_recognised(tmp_path, form, suffix):
    row, labels = FORMS[form]
    for split, n in SIZES.items():
        write(tmp_path / f"{split}{suffix}", [row(split, i) for i in range(n)])
    corpus = load_files(tmp_path)
    assert {s: len(p) for s, p in corpus.splits.items()} == SIZES
    assert corpus.labels == labels
    assert corpus.comparison == "user"
    assert corpus.paired == (form in ("paraphrase", "entailment"))
    train = corpus.splits["train"]
    first = list(train.ids).index("train/000000" if form != "paraphrase" else "train/0")
    expected = row("train", 0)
    assert train.text[first] == next(iter(expected.values()))
    label = expected[next(k for k in ("label", "airline_sentiment", "sentiment", "intent") if k in expected)]
    assert corpus.labels[train.label[first]] == str(label)
    assert "text = " in corpus.card.construction


def test_the_forms_of_one_corpus_have_one_fingerprint(tmp_path):
    prints = set()
    for suffix in (".csv", ".jsonl", ".parquet"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        for split, n in SIZES.items():
            write(folder / f"{split}{suffix}", mrpc_rows(split, n))
        prints.add(load_files(folder).fingerprint)
    assert len(prints) == 1


@pytest.fixture
def mrpc(tmp_path) -> Path:
    for split, n in {"train": 60, "validation": 10, "test": 20}.items():
        write(tmp_path / f"{split}.jsonl", mrpc_rows(split, n))
    return tmp_path


def test_three_files_are_a_corpus_without_ood(mrpc):
    folders = [(mrpc, (60, 10, 20))] + ([(SHARED, (3668, 407, 1724))] if SHARED.is_dir() else [])
    for folder, sizes in folders:
        corpus = load_files(folder, name="mrpc")
        assert tuple(len(s) for s in corpus.splits.values()) == sizes
        assert tuple(corpus.splits) == ("train", "validation", "test")
        assert corpus.labels == ("0", "1")
        assert corpus.paired
        source = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        by_id = {f"test/{r['idx']}": r for r in source}
        test = corpus.splits["test"]
        for ident, a, b, label in zip(test.ids, test.text, test.text_pair, test.label, strict=True):
            assert (a, b, label) == tuple(by_id[ident][k] for k in ("sentence1", "sentence2", "label"))


def test_one_file_is_divided_by_group(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "doc": f"d{i // 4}"} for i in range(400)]
    write(tmp_path / "all.csv", rows)
    corpus = load_files(tmp_path / "all.csv", group="doc")
    assert [len(s) for s in corpus.splits.values()] == pytest.approx([240, 40, 120], abs=8)


def test_named_columns_win_over_guesses(tmp_path):
    rows = [{"text": f"no {i}", "label": 0, "body": f"yes {i}", "grade": "xy"[i % 2], "key": f"k{i}"} for i in range(9)]
    write(tmp_path / "train.csv", rows)
    corpus = load_files({"train": tmp_path / "train.csv"}, text="body", label="grade", id="key")
    assert corpus.labels == ("x", "y")
    assert corpus.splits["train"].text[0] == "yes 0"
    assert corpus.splits["train"].ids[0] == "train/k0"


def test_numbers_as_labels_are_ordered_as_numbers(tmp_path):
    write(tmp_path / "train.csv", [{"text": f"t{i}", "label": i % 12} for i in range(36)])
    assert load_files({"train": tmp_path / "train.csv"}).labels == tuple(map(str, range(12)))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_text_of_ten_thousand_words_passes(tmp_path, suffix):
    long = " ".join(f"word{i}" for i in range(10_000))
    write(tmp_path / f"train{suffix}", [{"text": long, "label": 1}, {"text": "short", "label": 0}])
    corpus = load_files({"train": tmp_path / f"train{suffix}"})
    assert max(len(t.split()) for t in corpus.splits["train"].text) == 10_000
    assert corpus.summary()[0]["max_words"] == 10_000


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path, suffix):
    path = tmp_path / f"train{suffix}"
    write(path, [{"text": "fine", "label": 0}, {"text": "caf\xe9", "label": 1}])
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    line = 3 if suffix == ".csv" else 2
    with pytest.raises(CorpusError, match=rf"line {line}: the file is not UTF-8; found byte 0xe9.*iconv"):
        load_files({"train": path})


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbftext,label\na,0\nb,1\n")
    assert len(load_files({"train": tmp_path / "train.csv"}).splits["train"]) == 2


def test_an_empty_split_is_named(mrpc):
    (mrpc / "test.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"test.jsonl: the split is empty"):
        load_files(mrpc)


def test_one_class_is_named(tmp_path):
    write(tmp_path / "train.csv", [{"text": f"t{i}", "label": "spam"} for i in range(5)])
    with pytest.raises(CorpusError, match="one class only; found 'spam'"):
        load_files({"train": tmp_path / "train.csv"})


def test_a_text_in_two_splits_is_refused_or_dropped(mrpc):
    rows = mrpc_rows("test", 20)
    rows[4] = dict(mrpc_rows("train", 60)[7], idx=4)
    write(mrpc / "test.jsonl", rows)
    with pytest.raises(CorpusError, match="duplicates='drop'"):
        load_files(mrpc)
    corpus = load_files(mrpc, duplicates="drop")
    assert len(corpus.splits["test"]) == 19
    assert sum(corpus.card.counts.values()) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 0}, {"text": " ", "label": 1}], "row 2 has an empty text"),
        ([{"text": "a", "label": 0}, {"text": None, "label": 1}], "row 2 has an empty text; found (None|nan)"),
        ([{"text": "a", "label": None}, {"text": "b", "label": 1}], "row 1 has no label"),
        ([{"words": "a", "label": 0}], "no column looks like the text; found words, label"),
        ([{"text": "a", "mark": 0}], "no column looks like the label"),
        ([{"text": "a", "label": 0, "id": 3}, {"text": "b", "label": 1, "id": 3}], "the id 'train/3' is used twice"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_faulty_rows_are_named(tmp_path, rows, message, suffix):
    write(tmp_path / f"train{suffix}", rows)
    with pytest.raises(CorpusError, match=message):
        load_files({"train": tmp_path / f"train{suffix}"})


def test_a_label_unknown_to_training_is_named(mrpc):
    write(mrpc / "test.jsonl", [dict(r, label=7) for r in mrpc_rows("test", 3)])
    with pytest.raises(CorpusError, match=r"test.jsonl: the split 'test' has a label that training has not; found '7'"):
        load_files(mrpc)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "text,label\na,0\nb,1,2\n", "line 3: a row has another number of fields"),
        ("train.jsonl", '{"text": "a", "label": 0}\n{"text": "b"', "line 2: the line is no JSON"),
        ("train.jsonl", "[1]\n", "line 1: the line is no JSON object; found list"),
        ("train.parquet", "nothing of the sort", "train.parquet: the file cannot be read"),
        ("train.txt", "text", "unknown kind of file; found .txt"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError, match=message):
        load_files({"train": tmp_path / name})


def test_missing_files_columns_and_splits_are_named(tmp_path, mrpc):
    with pytest.raises(CorpusError, match="no such file"):
        load_files(tmp_path / "absent.csv")
    with pytest.raises(CorpusError, match="no such file"):
        load_files({"train": tmp_path / "absent.csv"})
    with pytest.raises(CorpusError, match="did you mean 'label'"):
        load_files(mrpc, label="lable")
    with pytest.raises(CorpusError, match="did you mean 'validation'"):
        load_files({"validaton": mrpc / "test.jsonl"})
    with pytest.raises(CorpusError, match="there is no training file"):
        load_files({"test": mrpc / "test.jsonl"})
    write(mrpc / "dev.jsonl", mrpc_rows("dev", 3))
    with pytest.raises(CorpusError, match=r"two files for the split 'validation'; found dev.jsonl, validation.jsonl"):
        load_files(mrpc)
    (mrpc / "empty").mkdir()
    with pytest.raises(CorpusError, match="there is no training file; found nothing"):
        load_files(mrpc / "empty")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    from soi_lib.data.table_files import read

    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(CorpusError, match=r"rows\.csv.*found Is a directory"):
        read(tmp_path / "rows.csv")
