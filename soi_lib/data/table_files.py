"""Rows out of one file: separated text, JSON (lines or an array), Parquet, each possibly packed with gzip.

No row is lost silently. Encoding and separator are guessed only where they are certain (a byte-order
mark; the one separator that fits every line), a quote that does not pair is a character, and what could be read in two
ways is refused with its lines. Each row knows its lines, so that messages name them and a copy holds their characters.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib.errors import CorpusError, raise_all

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # starts like that of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Table:
    """The rows of one file or split, as they are in it.

    frame: values of any type; where: for messages; names: the label names that the file itself gives to numbers, by
    column; notes: what was recognised. For text files, lines: all lines; spans: the lines of each row (first, end);
    encoding: how the file is encoded; for separated text, separator, whether quotes are more than characters, and
    places: where each column is in a row.
    """

    frame: pd.DataFrame
    where: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lines: Sequence[str] = ()
    spans: Sequence[tuple[int, int]] = ()
    encoding: str = "utf-8"
    separator: str = ""
    quotes: bool = True
    places: Mapping[str, int] = field(default_factory=dict)

    def row(self, number: int) -> str:
        """The row at a position from 0 as a message names it: `row 3`, in a text file with its first line."""
        return f"row {number + 1} (line {self.spans[number][0] + 1})" if self.spans else f"row {number + 1}"

    def with_value(self, number: int, column: str, value: str) -> str:
        """The characters of a row of separated text, with another value in one column."""
        first, end = self.spans[number]
        record = _cut(self.lines[first:end], self.separator, quotes=self.quotes)
        fields, last = record.fields[0], self.lines[end - 1]
        fields[self.places[column]] = value
        line_end = last[len(last.rstrip("\r\n")) :]
        if record.unpaired or not self.quotes:
            return self.separator.join(fields) + line_end
        made = io.StringIO()
        csv.writer(made, delimiter=self.separator, lineterminator=line_end).writerow(fields)
        return made.getvalue()


def kind_of(path: Path) -> str:
    """The lower-case suffix that says what a file holds, without `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def some(values: Sequence[object], n: int | None = None) -> str:
    """The first few of `n` values, for a message."""
    rest = (n or len(values)) - 6
    return ", ".join(map(str, values[:6])) + (f" and {rest} more" if rest > 0 else "")


def read_table(path: Path, separator: str | None = None, encoding: str | None = None, header: bool = True) -> Table:
    """The rows of one file. Raises CorpusError, with the line, for whatever cannot be read in exactly one way."""
    kind = kind_of(path)
    if not path.exists():
        raise CorpusError("no such file or folder", where=path, hint="check the path")
    if path.is_dir():
        raise CorpusError("this is a directory", where=path, expected="a file", hint="give the file itself")
    if kind not in SUFFIXES:
        found, hint = kind or "no suffix", "convert it (save a spreadsheet as CSV), or rename it"
        raise CorpusError("unknown kind of file", where=path, found=found, expected=", ".join(SUFFIXES), hint=hint)
    try:
        if kind == ".parquet":
            return _parquet(path)
        text, encoding = _text(path, encoding)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise CorpusError("the file cannot be read", where=path, found=error) from error
    lines = list(io.StringIO(text, newline=""))
    if not text.strip("\ufeff \t\r\n"):
        import pandas as pd

        return Table(pd.DataFrame(), str(path))
    if kind in (".json", ".jsonl", ".ndjson"):
        return _json(path, lines, encoding)
    separator = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        what = "a separator is one character"
        raise CorpusError(what, where="--separator", found=repr(separator), expected="such as ; or tab")
    return _separated(path, lines, encoding, separator, "," if kind == ".csv" else "\t", header)


def _text(path: Path, encoding: str | None) -> tuple[str, str]:
    """The characters of a file, including the byte-order mark, and their encoding."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    if b"\0" in data and encoding is None and marked == "utf-8":
        likely = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        raise CorpusError("the file is not UTF-8", where=path, found="zero bytes", hint=f"try --encoding {likely}")
    try:
        text = data.decode(encoding or marked)
    except LookupError:
        raise CorpusError("unknown encoding", where="--encoding", found=repr(encoding), hint="utf-8, cp1252") from None
    except UnicodeDecodeError as error:
        where = f"{path} line {data[: error.start].count(10) + 1}"
        hint = (
            "name the encoding, such as --encoding cp1252 (Windows, Western Europe), cp1251 (Cyrillic), cp1256 (Arabic)"
        )
        what, found = f"the file is not {error.encoding.upper()}", f"byte 0x{data[error.start]:02x}"
        raise CorpusError(what, where=where, found=found, hint=hint) from None
    return text, encoding or marked


@dataclass
class _Records:
    """The fields of records, their lines (first, end), and the lines with a quote that does not pair, from 0."""

    fields: list[list[str]] = field(default_factory=list)
    lines: list[tuple[int, int]] = field(default_factory=list)
    unpaired: list[int] = field(default_factory=list)

    def fit(self) -> bool:
        """Whether all records have the same number of fields, and more than one."""
        return len({len(fields) for fields in self.fields}) == 1 and len(self.fields[0]) > 1


def _cut(lines: Sequence[str], separator: str, *, quotes: bool = True) -> _Records:
    """Lines as records. Where a quote does not pair, its line is one record and quotes are characters; without `quotes`
    every line is."""
    out, at = _Records(), 0
    head = next((line for line in lines if line.strip()), "")
    spaced = separator in head and head.count(separator) == head.count(f"{separator} ")
    form: dict[str, Any] = {"delimiter": separator, "skipinitialspace": spaced}
    while at < len(lines):
        begin = at
        rest = (lines[i].removeprefix("\ufeff") if i == 0 else lines[i] for i in range(begin, len(lines)))
        reader = csv.reader(rest, strict=True, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, **form)
        try:
            for fields in reader:
                at, first = begin + reader.line_num, at
                if len(fields) > 1 or "".join(fields).strip():
                    out.fields.append(fields)
                    out.lines.append((first, at))
        except csv.Error:
            out.unpaired.append(at)
            out.fields += csv.reader([lines[at]], quoting=csv.QUOTE_NONE, **form)
            out.lines.append((at, at + 1))
            at += 1
    for fields in out.fields:
        width = len(out.fields[0])
        if not "".join(fields[width:]).strip():  # a separator too many at the end
            del fields[width:]
    return out


def _separated(path: Path, lines: list[str], encoding: str, separator: str | None, default: str, header: bool) -> Table:
    import pandas as pd

    csv.field_size_limit(1 << 30)
    notes = [] if encoding == "utf-8" else [f"encoding: {encoding}"]
    if named := re.fullmatch(r"\ufeff?sep=(.)\s*", lines[0]):  # the line with which spreadsheets name the separator
        separator = separator or named[1]
    rows = ["", *lines[1:]] if named else lines
    chosen = separator or default
    records = _cut(rows, chosen)
    if separator is None and not records.fit():
        others = {s: cut for s in _SEPARATORS if s != default and (cut := _cut(rows, s)).fit()}
        if len(others) == 1:
            ((chosen, records),) = others.items()
            notes.append(f"separator: {_SEPARATORS[chosen]}, the only one that fits every line")
    if not records.fields:
        return Table(pd.DataFrame(), str(path))
    quotes = True
    if records.unpaired:
        notes.append(f"quotes that do not pair are characters (line {some([i + 1 for i in records.unpaired])})")
        plain = _cut(rows, chosen, quotes=False)
        quotes = not plain.fit()
        records = records if quotes else plain
    width = len(records.fields[0])
    raise_all(_faults(path, rows, records, chosen))
    values = records.fields[int(header) :]
    names = [name.strip() for name in records.fields[0]] if header else [str(i + 1) for i in range(width)]
    used = [i for i, name in enumerate(names) if name or any(row[i].strip() for row in values)]
    if len(used) < width:
        notes.append(f"columns without a name and without values: {width - len(used)}, ignored")
    names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    frame = pd.DataFrame(values, columns=names, dtype=object).iloc[:, used]
    spans = records.lines[int(header) :]
    places = {names[i]: i for i in used}
    return Table(frame, str(path), {}, tuple(notes), lines, spans, encoding, chosen, quotes, places)


def _faults(path: Path, lines: Sequence[str], records: _Records, separator: str) -> Iterable[CorpusError]:
    """Why these records cannot be the rows: a different number of fields, or a quote that swallows rows."""
    width = len(records.fields[0])
    wrong = {first + 1: len(f) for f, (first, _) in zip(records.fields, records.lines, strict=True) if len(f) != width}
    if wrong:
        what, sep = "rows do not have as many fields as the header", _SEPARATORS.get(separator, repr(separator))
        found = f"{some(sorted(set(wrong.values())))} in line {some(list(wrong))}"
        hint = "put texts that contain the separator between quotes (and double quotes in them), or give --separator"
        yield CorpusError(what, where=path, found=found, expected=f"{width}, with {sep} between them", hint=hint)
    several = [(first, end) for first, end in records.lines if end - first > 1]
    single = _cut(lines, separator, quotes=False) if several else _Records()
    row_of = {first: f for f, (first, _) in zip(single.fields, single.lines, strict=True) if len(f) == width}
    seen = Counter((i, value) for row in row_of.values() for i, value in enumerate(row) if value.strip())
    for first, end in several:
        # each line would be a row by itself, with a value (its label) that other rows have as well
        if all(any(seen[i, v] > 1 for i, v in enumerate(row_of.get(line, ()))) for line in range(first, end)):
            what = f"a quote opens in line {first + 1} and closes in line {end}, and the lines look like rows"
            yield CorpusError(what, where=path, hint='write a quote that belongs to a text "like ""this"" one"')


def _json(path: Path, lines: list[str], encoding: str) -> Table:
    """Rows of JSON lines, or (then without spans) of one value."""
    import pandas as pd

    text = "".join(lines).removeprefix("\ufeff")
    array = text.lstrip().startswith("[")
    spans = [] if array else [(i, i + 1) for i, line in enumerate(lines) if line.strip("\ufeff \t\r\n")]
    rows, bad, notes = [], [], []
    for first, end in spans or [(0, len(lines))]:
        try:
            value = json.loads("".join(lines[first:end]).removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            value, first = None, getattr(error, "lineno", 1) - 1 if array else first
        found = value if array and isinstance(value, list) else [value]
        rows += found
        if not all(isinstance(row, dict) for row in found):
            bad.append(first + 1)
    if bad or len(rows) == 1:
        with suppress(ValueError, RecursionError):
            if one := _rows_of_object(json.loads(text)):
                (rows, note), bad, spans = one, [], []
                notes.append(note)
    if bad:
        expected = 'one array [{"text": ..., "label": ...}, ...]' if array else "an object a line, or one array of them"
        where, what = f"{path} line {some(bad)}", "not every row is a JSON object"
        raise CorpusError(what, where=where, expected=expected, hint="correct these lines, or save the file again")
    return Table(pd.DataFrame(rows, dtype=object), str(path), {}, tuple(notes), lines, spans, encoding)


def _rows_of_object(value: Any) -> tuple[list[Any], str] | None:
    """The rows of an object that holds an array of them, or a list or an object of values for each column."""
    parts = value if isinstance(value, dict) else {}
    arrays = [
        k for k, part in parts.items() if isinstance(part, list) and part and {type(row) for row in part} == {dict}
    ]
    if len(arrays) == 1:
        return parts[arrays[0]], f'the rows are those of "{arrays[0]}"'
    columns = [list(part.values()) if isinstance(part, dict) else part for part in parts.values()]
    if len(columns) < 2 or any(not isinstance(part, list) or len(part) != len(columns[0]) for part in columns):
        return None
    return [dict(zip(parts, row, strict=True)) for row in zip(*columns, strict=True)], "the file holds columns"


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True).astype(object)
    return Table(frame, str(path), names)
