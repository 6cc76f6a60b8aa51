"""Rows out of one file: separated text, JSON (lines or an array), Parquet, each possibly packed with gzip.

What is special: nothing is lost in silence. Encoding and separator are taken where they are certain (a byte-order
mark; the one separator that fits every line), a quote that does not pair is a character, and what could be read in two
ways is refused with its lines. Each row knows its lines, so that messages name them and a copy holds their characters.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib.errors import CorpusError, raise_all

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins like the mark of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Table:
    """The rows of one file or split, as they are there.

    frame: values of any type; where: for messages; names: the label names that the file itself gives to numbers, by
    column; notes: what was recognised; lines, spans: of text files, and in which of the lines each row is (first, end);
    encoding: of text files.
    """

    frame: pd.DataFrame
    where: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lines: Sequence[str] = ()
    spans: Sequence[tuple[int, int]] = ()
    encoding: str = "utf-8"

    def row(self, number: int) -> str:
        """How a message names the row at a position from 0: `row 3`, in a text file with the line where it begins."""
        return f"row {number + 1} (line {self.spans[number][0] + 1})" if self.spans else f"row {number + 1}"


def kind_of(path: Path) -> str:
    """The lower-case suffix that says what a file holds, without `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def some(values: Sequence[object], n: int | None = None) -> str:
    """The first few of `n` values, in a message."""
    rest = (n or len(values)) - 6
    return ", ".join(map(str, values[:6])) + (f" and {rest} more" if rest > 0 else "")


def read_table(path: Path, separator: str | None = None, encoding: str | None = None, header: bool = True) -> Table:
    """The rows of one file. Raises CorpusError with the line for whatever cannot be read, or in two ways."""
    kind = kind_of(path)
    if not path.exists():
        raise CorpusError("no such file or folder", where=path, hint="check the path")
    if path.is_dir():
        raise CorpusError("this is a directory", where=path, expected="a file", hint="give the file itself")
    if kind not in SUFFIXES:
        found, hint = kind or "no suffix", "convert it (a spreadsheet: save it as CSV), or rename it"
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
    """The characters of a file, its byte-order mark too, and how they are encoded."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding or marked)
    except LookupError:
        raise CorpusError("unknown encoding", where="--encoding", found=repr(encoding), hint="utf-8, cp1252") from None
    except UnicodeDecodeError as error:
        where = f"{path} line {data[: error.start].count(10) + 1}"
        hint = "say how it is encoded: --encoding cp1252 if it is from Windows, in a language of Western Europe"
        what, found = f"the file is not {error.encoding.upper()}", f"byte 0x{data[error.start]:02x}"
        raise CorpusError(what, where=where, found=found, hint=hint) from None
    if "\0" in text and encoding is None:
        likely = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        raise CorpusError("the file is not UTF-8", where=path, found="zero bytes", hint=f"try --encoding {likely}")
    return text, encoding or marked


@dataclass
class _Records:
    """Fields of records, their lines (first, end), and on which lines quotes do not pair; lines count from 0."""

    fields: list[list[str]] = field(default_factory=list)
    lines: list[tuple[int, int]] = field(default_factory=list)
    unpaired: list[int] = field(default_factory=list)

    def fit(self) -> bool:
        """Whether all records have one number of fields, and more than one."""
        return len({len(fields) for fields in self.fields}) == 1 and len(self.fields[0]) > 1


def _cut(lines: Sequence[str], separator: str, *, quotes: bool = True) -> _Records:
    """Lines as records. One in which a quote does not pair is its first line alone, with quotes as characters; so are
    all of them where `quotes` is false."""
    out, at = _Records(), 0
    spaced = separator in lines[0] and lines[0].count(separator) == lines[0].count(f"{separator} ")
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
    return out


def _separated(path: Path, lines: list[str], encoding: str, separator: str | None, default: str, header: bool) -> Table:
    import pandas as pd

    csv.field_size_limit(1 << 30)
    notes = [] if encoding == "utf-8" else [f"encoding: {encoding}"]
    chosen = separator or default
    records = _cut(lines, chosen)
    if separator is None and not records.fit():
        others = {s: cut for s in _SEPARATORS if s != default and (cut := _cut(lines, s)).fit()}
        if len(others) == 1:
            ((chosen, records),) = others.items()
            notes.append(f"separator: {_SEPARATORS[chosen]}, the only one that fits every line")
    if not records.fields:
        return Table(pd.DataFrame(), str(path))
    if records.unpaired:
        notes.append(f"quotes that do not pair are characters (line {some([i + 1 for i in records.unpaired])})")
        plain = _cut(lines, chosen, quotes=False)
        records = plain if plain.fit() else records
    raise_all(_faults(path, lines, records, chosen))
    width, rows = len(records.fields[0]), records.fields[int(header) :]
    names = [name.strip() for name in records.fields[0]] if header else [str(i + 1) for i in range(width)]
    used = [i for i, name in enumerate(names) if name or any(row[i].strip() for row in rows)]
    if len(used) < width:
        notes.append(f"columns without a name and without values: {width - len(used)}, ignored")
    names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    frame = pd.DataFrame(rows, columns=names, dtype=object).iloc[:, used]
    return Table(frame, str(path), {}, tuple(notes), lines, records.lines[int(header) :], encoding)


def _faults(path: Path, lines: Sequence[str], records: _Records, separator: str) -> Iterable[CorpusError]:
    """What forbids to take these records as rows: another number of fields, a quote that takes rows with it."""
    width = len(records.fields[0])
    other = [
        (len(f), first + 1) for f, (first, _) in zip(records.fields, records.lines, strict=True) if len(f) != width
    ]
    if other:
        what, sep = "rows have another number of fields than the header", _SEPARATORS.get(separator, repr(separator))
        found = f"{some(sorted({n for n, _ in other}))} in line {some([line for _, line in other])}"
        hint = "put texts that contain the separator between quotes (and double quotes in them), or give --separator"
        yield CorpusError(what, where=path, found=found, expected=f"{width}, with {sep} between them", hint=hint)
    several = [place for place in records.lines if place[1] - place[0] > 1]
    alone = _cut(lines, separator, quotes=False) if several else _Records()
    row_of = {place[0]: fields for fields, place in zip(alone.fields, alone.lines, strict=True) if len(fields) == width}
    seen = Counter((i, value) for row in row_of.values() for i, value in enumerate(row) if value.strip())
    for first, end in several:
        # each line alone would be a row, and has a value (its label) that other rows have as well
        if all(any(seen[i, v] > 1 for i, v in enumerate(row_of.get(line, ()))) for line in range(first, end)):
            what = f"a quote opens in line {first + 1} and closes in line {end}, and the lines look like rows"
            yield CorpusError(what, where=path, hint='write a quote that belongs to a text "like ""this"" one"')


def _json(path: Path, lines: list[str], encoding: str) -> Table:
    """Rows of JSON lines, or of an array, whose rows have no lines of their own."""
    import pandas as pd

    text, rows, bad = "".join(lines).removeprefix("\ufeff"), [], []
    spans = [(i, i + 1) for i, line in enumerate(lines) if line.strip("\ufeff \t\r\n")]
    if array := text.lstrip().startswith("["):
        spans = []
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            bad = [getattr(error, "lineno", 1)]
        bad = bad or [1 for row in rows if not isinstance(row, dict)]
    for first, _ in spans:
        try:
            rows.append(json.loads(lines[first].removeprefix("\ufeff")))
        except (ValueError, RecursionError):
            rows.append(None)
        if not isinstance(rows[-1], dict):
            bad.append(first + 1)
    if bad:
        expected = 'one array [{"text": ..., "label": ...}, ...]' if array else "an object a line, or one array of them"
        where, what = f"{path} line {some(bad)}", "not every row is a JSON object"
        raise CorpusError(what, where=where, expected=expected, hint="correct these lines, or save the file again")
    return Table(pd.DataFrame(rows, dtype=object), str(path), {}, (), lines, spans, encoding)


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True).astype(object)
    return Table(frame, str(path), names)
