"""Tables in files: every row is read, or an error names the doubtful lines; following its hint works."""

import codecs
import csv
import gzip
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soi_lib.data.table_files import read_table
from soi_lib.errors import CorpusError

ROWS = [
    (f"the {word} is {i}", "ab"[i % 2])
    for i, word in enumerate(["lamp", "kettle", "chair", "tent", "sofa", "radio"] * 2)
]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(separator: str = ",", end: str = "\n", header: str = "text{}label") -> str:
    return end.join([header.format(separator), *(separator.join(row) for row in ROWS)]) + end


def objects(separator: str = "\n") -> str:
    return separator.join(json.dumps(dict(zip(("text", "label"), row, strict=True))) for row in ROWS)


FORMS: dict[str, tuple[str, str | bytes]] = {
    "commas": ("a.csv", lines()),
    "tabs": ("a.tsv", lines("\t")),
    "semicolons": ("a.csv", lines(";")),
    "bars in a .txt": ("a.txt", lines("|")),
    "Windows line ends": ("a.csv", lines(end="\r\n")),
    "old Mac line ends": ("a.csv", lines(end="\r")),
    "no last line end": ("a.csv", lines().rstrip()),
    "blank lines": ("a.csv", lines(end="\n\n")),
    "a byte-order mark": ("a.csv", codecs.BOM_UTF8 + lines().encode()),
    "a byte-order mark before a quote": ("a.csv", codecs.BOM_UTF8 + lines(header='"text"{}"label"').encode()),
    "UTF-16": ("a.tsv", codecs.BOM_UTF16_LE + lines("\t").encode("utf-16-le")),
    "UTF-32": ("a.csv", codecs.BOM_UTF32_LE + lines().encode("utf-32-le")),
    "spaces after separators": ("a.csv", lines(", ")),
    "spaces and quotes": ("a.csv", 'text, label\n' + "".join(f'"{t}", {b}\n' for t, b in ROWS)),
    "spaces in the header": ("a.tsv", lines("\t", header=" text {} label ")),
    "columns without a name": ("a.csv", "text,label,,,\n" + "".join(f"{t},{b},,,\n" for t, b in ROWS)),
    "a separator too many in the rows": ("a.csv", "text,label\n" + "".join(f"{t},{b},\n" for t, b in ROWS)),
    "a line that names the separator": ("a.csv", codecs.BOM_UTF8 + f"sep=;\r\n{lines(';')}".encode()),
    "gzip": ("a.csv.gz", gzip.compress(lines(";").encode())),
    "JSON lines": ("a.jsonl", objects()),
    "JSON lines with a byte-order mark": ("a.ndjson", codecs.BOM_UTF8 + objects("\r\n\r\n").encode()),
    "a JSON array": ("a.json", f"[{objects(', ')}]"),
    "JSON lines in a .json": ("a.json", objects()),
    "an array in an object": ("a.json", f'{{"version": 1, "data": [{objects(",")}]}}'),
    "lists by column": ("a.json", json.dumps({"text": [t for t, _ in ROWS], "label": [b for _, b in ROWS]}, indent=1)),
    "objects by column": ("a.json", pd.DataFrame(ROWS, columns=["text", "label"]).to_json()),
    "an array in a .jsonl": ("a.jsonl", json.dumps(json.loads(f"[{objects(',')}]"), indent=1)),
    "a name in Persian": ("نظرها.csv", lines()),
    "capitals": ("A.CSV", lines()),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_table(tmp_path, form):
    name, content = FORMS[form]
    table = read_table(written(tmp_path / name, content))
    assert list(table.frame.columns) == ["text", "label"]
    assert list(table.frame.itertuples(index=False, name=None)) == ROWS


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ","), ("a.csv", ";")])
@pytest.mark.parametrize("at", [0, 5, 11])
@pytest.mark.parametrize("text", ['"unpaired', '"said" he', 'five " more', '"""'])
def test_an_unpaired_quote_is_a_character(tmp_path, name, separator, at, text):
    rows = [*ROWS[:at], (text, "b"), *ROWS[at + 1 :]]
    for columns, order in ((["text", "label"], 1), (["label", "text"], -1)):
        body = [separator.join(row[::order]) for row in rows]
        table = read_table(written(tmp_path / name, "\n".join([separator.join(columns), *body, ""])))
        assert list(table.frame[["text", "label"]].itertuples(index=False, name=None)) == rows


def test_texts_of_several_lines_are_one_row(tmp_path):
    rows = [*ROWS, ("Hello, you\nthanks", "a"), ('he said "no",\nand\n\nleft', "b"), ("", "a"), ("x\r\ny", "b")]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("text", "label"), *rows])
    table = read_table(tmp_path / "a.csv")
    assert list(table.frame.itertuples(index=False, name=None)) == rows
    assert table.row(len(ROWS) + 1) == f"row {len(ROWS) + 2} (line {len(ROWS) + 4})"


def test_quotes_that_pair_across_rows_are_an_error_that_names_the_lines(tmp_path):
    rows = [*ROWS[:4], ('"an inch', "a"), *ROWS[4:8], ('of 5"', "b"), *ROWS[8:]]
    path = written(tmp_path / "a.tsv", "label\ttext\n" + "".join(f"{b}\t{t}\n" for t, b in rows))
    with pytest.raises(CorpusError, match=r"opens in line 6 and closes in line 11.*\"like \"\"this\"\" one\"") as one:
        read_table(path)
    assert "\n" not in str(one.value)
    fixed = path.read_text().replace('"an inch', '"""an inch"').replace('of 5"', '"of 5"""')  # as the hint says
    assert read_table(written(path, fixed)).frame["text"].tolist() == [t for t, _ in rows]


TEXT = st.text(alphabet='ab "\n,;\t|é', min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXT, min_size=6, max_size=12), separator=st.sampled_from(",;\t|"))
def test_what_a_csv_writer_wrote_is_read_unchanged(tmp_path_factory, texts, separator):
    rows = [(text, "pq"[i % 2]) for i, text in enumerate(texts)]
    handle = io.StringIO(newline="")
    csv.writer(handle, delimiter=separator, lineterminator="\n").writerows([("text", "label"), *rows])
    path = written(tmp_path_factory.mktemp("h") / "a.csv", handle.getvalue())
    try:
        found = list(read_table(path).frame.itertuples(index=False, name=None))
    except CorpusError:  # a text that looks like rows
        assert any("\n" in text and separator in text for text in texts)
        return
    assert found == rows


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(alphabet='ab "', min_size=1, max_size=8), min_size=6, max_size=12))
def test_rows_are_never_lost_silently(tmp_path_factory, texts):
    """Lines with quotes anywhere give all rows, each with its label, or an error."""
    body = "".join(f"{'pq'[i % 2]}\t{text}\n" for i, text in enumerate(texts))
    path = written(tmp_path_factory.mktemp("h") / "a.tsv", "label\ttext\n" + body)
    try:
        frame = read_table(path).frame
    except CorpusError:
        return
    assert frame["label"].tolist() == ["pq"[i % 2] for i in range(len(texts))]
    assert [t.replace('"', "") for t in frame["text"]] == [t.replace('"', "") for t in texts]


ERRORS = {
    "fields": ("a.csv", "text,label\na,b\nc,d,e\nf\n", r"as many fields.*found 1, 3 in line 3, 4, expected 2"),
    "JSON": ("a.jsonl", '{"a": 1}\n{"a"\n[1]\n', r"a.jsonl line 2, 3: not every row is a JSON object"),
    "a cut array": ("a.json", '[{"text": "a"}, {"text": "b"}', r"a.json line 1: not every row .*expected one array"),
    "Parquet": ("a.parquet", "no", r"a.parquet: the file cannot be read"),
    "gzip": ("a.csv.gz", gzip.compress(b"text,label\n")[:-6], r"the file cannot be read"),
    "a spreadsheet": ("a.xlsx", "PK", r"unknown kind of file; found .xlsx.*as CSV"),
    "no suffix": ("a", "text,label\n", r"unknown kind of file; found no suffix"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_lines(tmp_path, name):
    file, content, message = ERRORS[name]
    with pytest.raises(CorpusError, match=message) as one:
        read_table(written(tmp_path / file, content))
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(
    ("text", "encoding"), [("caf\xe9", "cp1252"), ("plain", "utf-16-le"), ("plain", "utf-16-be"), ("سلام", "utf-16-le")]
)
def test_the_hint_on_an_encoding_works(tmp_path, text, encoding):
    path = written(tmp_path / "a.csv", f"text,label\n{text},a\n".encode(encoding))
    with pytest.raises(CorpusError, match="is not UTF-8") as one:
        read_table(path)
    assert re.search(r"--encoding (\S+)", str(one.value))[1] == encoding
    assert read_table(path, encoding=encoding).frame["text"].tolist() == [text]
    with pytest.raises(CorpusError, match="unknown encoding; found 'utf-99'"):
        read_table(path, encoding="utf-99")


def test_the_hint_on_a_separator_works(tmp_path):
    path = written(tmp_path / "a.csv", "text~label\na, b~c\nd~e\n")
    with pytest.raises(CorpusError, match=r"as many fields.*--separator"):
        read_table(path)
    assert read_table(path, separator="~").frame["text"].tolist() == ["a, b", "d"]
    assert read_table(written(path, "text\tlabel\na,b\tc\n"), separator="tab").frame["text"].tolist() == ["a,b"]
    with pytest.raises(CorpusError, match=r"--separator: a separator must be one character; found '::'"):
        read_table(path, separator="::")
