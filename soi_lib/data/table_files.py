"""Read rows from files (separated text, JSON, Parquet, each optionally gzipped), saved datasets and the hub.

No row is lost silently. Encoding and separator are guessed only if they are certain (a byte-order mark; the only
separator that fits every line). Unpaired quotes are ordinary characters. Anything that can be read in two ways raises
an error with its lines. Line numbers are kept, so that messages can name them.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from soi_lib.data.dataset import SPLITS
from soi_lib.data.places import DatasetSpec, check_place, commit_of, unreachable
from soi_lib.errors import CorpusError, nearest, raise_all

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the UTF-16 mark, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Table:
    """The rows of one file or split, unchanged.

    frame: values of any type; where: the source, for messages; names: the label names that the file itself gives to
    numbers, by column; notes: what was detected; lines: the line, from 1, where each row of a text file begins.
    encoding, separator, header and line_end: how a text file is written.
    """

    frame: pd.DataFrame
    where: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lines: Sequence[int] = ()
    encoding: str = "utf-8"
    separator: str = ""
    header: bool = True
    line_end: str = "\n"

    def row(self, number: int) -> str:
        """Return the name of a row (a position from 0) in messages: `row 3`, in a text file with its first line."""
        return f"row {number + 1} (line {self.lines[number]})" if self.lines else f"row {number + 1}"

    def check_columns(self, options: Mapping[str, str]) -> None:
        """Raise CorpusError for columns that are missing or appear twice.

        `options` gives the option that names another column or, without dashes, what to do if it is missing.
        """
        have = [str(name) for name in self.frame.columns]
        problems = []
        for name, option in options.items():
            if (n := have.count(name)) != 1:
                what = f"the column {name!r} appears twice" if n else f"there is no column {name!r}"
                other = f"{nearest(name, have)} ({option})" if option.startswith("--") else option
                problems.append(CorpusError(what, where=self.where, hint="rename one of them" if n else other))
        raise_all(problems)


def kind_of(path: Path) -> str:
    """Return the lower-case suffix that gives a file's format, without `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def some(values: Sequence[object], n: int | None = None) -> str:
    """Return the first few of `n` values as text, for a message."""
    rest = (n or len(values)) - 6
    return ", ".join(map(str, values[:6])) + (f" and {rest} more" if rest > 0 else "")


def read_table(path: Path, separator: str | None = None, encoding: str | None = None, header: bool = True) -> Table:
    """Read the rows of one file. Raises CorpusError, with the line, for what cannot be read in exactly one way."""
    kind = kind_of(path)
    if not path.is_file():
        if not path.exists():
            raise CorpusError("no such file or folder", where=path, hint="check the path")
        raise CorpusError("no such file", where=path, found="a folder", hint="give the path of a file")
    if kind not in SUFFIXES:
        found, hint = kind or "no suffix", "convert it (save a spreadsheet as CSV), or rename it"
        raise CorpusError("unknown kind of file", where=path, found=found, expected=", ".join(SUFFIXES), hint=hint)
    try:
        if kind == ".parquet":
            return _parquet(path)
        text, encoding = _text(path, encoding)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise CorpusError("the file cannot be read", where=path, found=error) from error
    if kind in (".json", ".jsonl", ".ndjson"):
        return _json(path, text, encoding)
    separator = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        what = "a separator must be one character"
        raise CorpusError(what, where="--separator", found=repr(separator), expected="for example ; or tab")
    return _separated(path, text, encoding, separator, "," if kind == ".csv" else "\t", header)


def _text(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return the text of a file without its byte-order mark, and its encoding."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    if b"\0" in data and encoding is None and marked == "utf-8":
        likely = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        raise CorpusError("the file is not UTF-8", where=path, found="zero bytes", hint=f"try --encoding {likely}")
    try:
        text = data.decode(encoding or marked)
    except LookupError:
        hint = "try utf-8 or cp1252"
        raise CorpusError("unknown encoding", where="--encoding", found=repr(encoding), hint=hint) from None
    except UnicodeDecodeError as error:
        where = f"{path} line {error.object[: error.start].count(10) + 1}"
        hint = "try --encoding cp1252 (Windows, Western Europe), cp1251 (Cyrillic) or cp1256 (Arabic)"
        what, found = f"the file is not {error.encoding.upper()}", f"byte 0x{error.object[error.start]:02x}"
        raise CorpusError(what, where=where, found=found, hint=hint) from None
    return text.removeprefix("\ufeff"), encoding or marked


class _Record(NamedTuple):
    """The fields of a record, and its lines (from 0, the end excluded)."""

    fields: list[str]
    first: int
    end: int
    unpaired: bool = False


def _cut(lines: Sequence[str], separator: str, *, quotes: bool = True) -> list[_Record]:
    """Divide lines into records. A line with an unpaired quote becomes one record whose quotes are ordinary characters;
    without `quotes`, every line does."""
    out: list[_Record] = []
    head = next((line for line in lines if line.strip()), "")
    spaced = separator in head and head.count(separator) == head.count(f"{separator} ")
    form: dict[str, Any] = {"delimiter": separator, "skipinitialspace": spaced}
    at = 0
    while at < len(lines):
        begin = at
        reader = csv.reader(lines[begin:], strict=True, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, **form)
        try:
            for fields in reader:
                first, at = at, begin + reader.line_num
                if len(fields) > 1 or "".join(fields).strip():
                    out.append(_Record(fields, first, at))
        except csv.Error:
            plain = next(csv.reader([lines[at]], quoting=csv.QUOTE_NONE, **form))
            out.append(_Record(plain, at, at + 1, unpaired=True))
            at += 1
    for record in out:
        width = len(out[0].fields)
        if not "".join(record.fields[width:]).strip():  # extra separators at the end
            del record.fields[width:]
    return out


def _fit(records: Sequence[_Record]) -> bool:
    """Return whether all records have the same number of fields, and more than one."""
    return len({len(record.fields) for record in records}) == 1 and len(records[0].fields) > 1


def _separated(path: Path, text: str, encoding: str, separator: str | None, default: str, header: bool) -> Table:
    import pandas as pd

    csv.field_size_limit(1 << 30)
    lines = list(io.StringIO(text, newline=""))
    notes = [] if encoding in ("utf-8", "utf-8-sig") else [f"encoding: {encoding}"]
    if named := re.fullmatch(r"sep=(.)\s*", "".join(lines[:1])):  # the line in which spreadsheets name the separator
        separator, lines[0] = separator or named[1], ""
    chosen = separator or default
    records = _cut(lines, chosen)
    if separator is None and not _fit(records):
        others = {s: cut for s in _SEPARATORS if s != default and _fit(cut := _cut(lines, s))}
        if len(others) == 1:
            ((chosen, records),) = others.items()
            notes.append(f"separator: {_SEPARATORS[chosen]}, the only one that fits every line")
    if not records:
        return Table(pd.DataFrame(), str(path))
    if unpaired := [record.first + 1 for record in records if record.unpaired]:
        notes.append(f"unpaired quotes are read as characters (line {some(unpaired)})")
        plain = _cut(lines, chosen, quotes=False)
        records = plain if _fit(plain) else records
    raise_all(list(_faults(path, lines, records, chosen)))
    first, rows = records[0], records[int(header) :]
    names = [name.strip() if header else str(i + 1) for i, name in enumerate(first.fields)]
    used = [i for i, name in enumerate(names) if name or any(row.fields[i].strip() for row in rows)]
    if len(used) < len(names):
        notes.append(f"columns without name and values are ignored: {len(names) - len(used)}")
    names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    frame = pd.DataFrame([row.fields for row in rows], columns=names, dtype=object).iloc[:, used]
    end = "\r\n" if lines[first.end - 1].endswith("\r\n") else "\n"
    begins = [row.first + 1 for row in rows]
    return Table(frame, str(path), {}, tuple(notes), begins, encoding, chosen, header, end)


def _faults(path: Path, lines: Sequence[str], records: Sequence[_Record], separator: str) -> Iterable[CorpusError]:
    """Yield why these records cannot be the rows: unequal numbers of fields, or a quote that swallows rows."""
    width = len(records[0].fields)
    if wrong := [record for record in records if len(record.fields) != width]:
        what, sep = "rows do not have as many fields as the header", _SEPARATORS.get(separator, repr(separator))
        counts, places = sorted({len(record.fields) for record in wrong}), [record.first + 1 for record in wrong]
        hint = "quote texts that contain the separator (and double the quotes inside them), or give --separator"
        found, expected = f"{some(counts)} in line {some(places)}", f"{width}, separated by {sep}"
        yield CorpusError(what, where=path, found=found, expected=expected, hint=hint)
    several = [record for record in records if record.end - record.first > 1]
    single = _cut(lines, separator, quotes=False) if several else []
    row_of = {record.first: record.fields for record in single if len(record.fields) == width}
    seen = Counter((i, value) for row in row_of.values() for i, value in enumerate(row) if value.strip())
    for _, first, end, _ in several:
        # each line would be a row of its own, with a value (its label) that other rows share
        if all(any(seen[i, v] > 1 for i, v in enumerate(row_of.get(line, ()))) for line in range(first, end)):
            what = f"a quote opens in line {first + 1} and closes in line {end}, and the lines look like rows"
            yield CorpusError(what, where=path, hint='write quotes inside a text "like ""this"" one"')


def _json(path: Path, text: str, encoding: str) -> Table:
    """Read rows from JSON lines, from one array, or (then without line numbers) from one object that holds them."""
    import pandas as pd

    array = text.lstrip().startswith("[")
    rows, lines, bad = [], [], []
    for number, part in enumerate([text] if array else io.StringIO(text, newline=""), start=1):
        if part.strip():
            try:
                value = json.loads(part)
            except (ValueError, RecursionError) as error:
                value, number = None, getattr(error, "lineno", 1) if array else number
            found = value if array and isinstance(value, list) else [value]
            rows += found
            lines.append(number)
            bad += [] if all(isinstance(row, dict) for row in found) else [number]
    if (bad or len(rows) == 1) and (frame := _frame_of_object(text)) is not None:
        return Table(frame, str(path), {}, ("the file is one object that holds the rows",), (), encoding)
    if bad:
        expected = 'one array [{"text": ..., "label": ...}, ...]' if array else "objects, one per line or in one array"
        where, what = f"{path} line {some(bad)}", "not every row is a JSON object"
        raise CorpusError(what, where=where, expected=expected, hint="correct these lines, or save the file again")
    return Table(pd.DataFrame(rows, dtype=object), str(path), {}, (), () if array else lines, encoding)


def _frame_of_object(text: str) -> pd.DataFrame | None:
    """Return the rows of an object that holds one array of them, or values by column; None for any other text."""
    import pandas as pd

    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        parts = list(value.values()) if isinstance(value, dict) else []
        arrays = [p for p in parts if isinstance(p, list) and p and all(isinstance(row, dict) for row in p)]
        if len(arrays) == 1:
            return pd.DataFrame(arrays[0], dtype=object)
        if len(parts) > 1 and not arrays and all(isinstance(part, list | dict) for part in parts):
            return pd.DataFrame(value, dtype=object).reset_index(drop=True)  # raises for columns of unequal length
    return None


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True).astype(object)
    return Table(frame, str(path), names)


# --- the files of a dataset ------------------------------------------------------------------------------------------

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
    "ood": ("ood", "out_of_distribution", "out-of-distribution"),
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
T = TypeVar("T")


def tables_of(name: str, spec: DatasetSpec) -> tuple[dict[str, Table], str, DatasetSpec]:
    """Return the rows of each split, a description of their origin, and the spec with the commit of a hub dataset.

    Raises one CorpusError for all files.
    """
    import pandas as pd

    check_place(name, spec)
    tables: dict[str, Table] = {}
    files: dict[str, list[Path]] = {}
    path = Path(str(spec.path)).expanduser()
    origin = path.name
    if spec.hub is not None:
        spec = spec.model_copy(update={"revision": commit_of(spec.hub, spec.revision, "dataset", CorpusError)})
        tables, origin = _from_datasets(spec), f"{spec.hub}@{spec.revision}"
    elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        tables = _from_datasets(spec)
    else:
        files = _in_folder(path, spec) if path.is_dir() else {"train": [path]}
    for split, file in (("test", spec.test), ("ood", spec.ood)):
        if file is not None:
            files[split] = [Path(file).expanduser()]
            origin += f", {split} {Path(file).name}"
    problems: list[CorpusError] = []
    for split, paths in files.items():
        try:
            parts = [read_table(one, spec.separator, spec.encoding, spec.header) for one in paths]
            frame = pd.concat([part.frame for part in parts], ignore_index=True)
            tables[split] = parts[0] if len(parts) == 1 else replace(parts[0], frame=frame, lines=())
        except CorpusError as error:
            problems.append(error)
    raise_all(problems)
    return {split: tables[split] for split in SPLITS if split in tables}, origin, spec


def files_of(spec: DatasetSpec) -> list[Path]:
    """Return the local files that rows may come from; a dataset is read again if one of them changes."""
    places = [Path(place).expanduser() for place in (spec.path, spec.test, spec.ood) if place is not None]
    return [f for place in places for f in (_visible(place, (*SUFFIXES, ".arrow")) if place.is_dir() else [place])]


def _visible(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files with these suffixes in a folder and below, sorted, without hidden ones."""
    files = (f for f in folder.rglob("*") if f.is_file() and kind_of(f) in suffixes)
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _in_folder(folder: Path, spec: DatasetSpec) -> dict[str, list[Path]]:
    """Return the files of a folder by split: one each, or shards (`train-00000-of-00002.parquet`)."""
    found: dict[str, list[Path]] = {}
    for file in _visible(folder, SUFFIXES):
        found.setdefault(_SHARD.sub("", file.name[: file.name.lower().rindex(kind_of(file))]), []).append(file)
    files = _matching(found, str(folder), spec)
    for split, parts in files.items():
        if len(parts) > 1 and not all(_SHARD.search(part.name) for part in parts):
            listed = ", ".join(str(part.relative_to(folder)) for part in parts)
            raise CorpusError(f"several files for {split!r}", where=folder, found=listed, hint="keep one of them")
    return files


def _from_datasets(spec: DatasetSpec) -> dict[str, Table]:
    """Read the splits with `datasets`, from disk or the hub; ClassLabel columns include their label names."""
    try:
        from datasets import load_dataset, load_from_disk

        found: Any = (
            load_dataset(spec.hub, spec.config, revision=spec.revision) if spec.hub else load_from_disk(spec.path)
        )
    except Exception as failure:  # datasets passes on whatever its dependencies raise
        if spec.hub:
            raise unreachable(spec, failure, CorpusError) from failure
        what, hint = "cannot be read as a saved dataset", "save it again"
        raise CorpusError(what, where=spec.path, found=failure, hint=hint) from failure
    tables = {}
    for split, part in _matching(found if isinstance(found, dict) else {"train": found}, str(spec), spec).items():
        names = {c: list(f.names) for c, f in part.features.items() if hasattr(f, "names")}
        tables[split] = Table(part.to_pandas().astype(object), f"{spec}, split {part.split or split}", names)
    return tables


def _matching(found: Mapping[str, T], where: str, spec: DatasetSpec) -> dict[str, T]:
    """Return the item of each split, by the usual names or those that the spec gives, ignoring case."""
    known_as = {name.casefold(): name for name in found}
    out: dict[str, T] = {}
    problems = []
    for split in SPLITS:
        named = spec.splits.get(split)  # type: ignore[call-overload]
        known = SPLIT_NAMES[split] if named is None else named
        hits = [known_as[name.casefold()] for name in known if name.casefold() in known_as]
        if hits and (named or len(hits) == 1):
            out[split] = found[hits[0]]
        elif hits or named or split == "train":
            what = f"several splits may be {split!r}" if hits else f"no split for {split!r}"
            others = {n for s, names in SPLIT_NAMES.items() if s != split for n in names}
            name = next((n for n in hits or found if n.casefold() not in others), "NAME")
            hint = f"name it: --split {split}={name} (in a profile splits: {{{split}: {name}}})"
            listed = ", ".join(hits or found) or "none"
            problems.append(CorpusError(what, where=where, found=listed, expected=" or ".join(known), hint=hint))
    raise_all(problems)
    return out
