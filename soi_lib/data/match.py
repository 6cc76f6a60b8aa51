"""Match a user's file to a run: find the rows that were trained on, check that they are unchanged, and copy them.

A run stores how its ids were made, and the label and a text fingerprint of every row. So a file that has been sorted
since training is matched by its texts, and one that has been edited raises an error. A copy keeps the file's format and
columns, and can have reviewed labels.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from soi_lib import files
from soi_lib.data.columns import IDS, equal_numbers, first_of, ids_of, labels_of, text_columns, texts_of
from soi_lib.data.dataset import Corpus, Split
from soi_lib.data.table_files import Table, kind_of, read_table, some
from soi_lib.errors import AlignmentError, CorpusError, SoiError, nearest, raise_all

if TYPE_CHECKING:
    import pandas as pd

_READING = b"soi_reading"


@dataclass(frozen=True)
class TrainedRows:
    """What a run stores of its rows: (text fingerprint, label name) by id, and how the rows were read."""

    rows: dict[str, tuple[int, str]]
    reading: dict[str, Any]


@dataclass(frozen=True)
class Matched:
    """The rows of a file that hold the examples of dynamics.

    rows (n,) int64: the row (from 0) of each requested id; by: how the rows were found; keys: the ids as the file has
    them; text: the text columns (both of a pair).
    """

    table: Table
    rows: npt.NDArray[np.int64]
    by: str
    keys: tuple[str, ...]
    text: tuple[str, ...]

    def values(self, columns: Iterable[str]) -> pd.DataFrame:
        """Return these columns of the matched rows, in the order of the requested ids. Raises CorpusError."""
        wanted = list(columns)
        self.table.check_columns(dict.fromkeys(wanted, "--text"))
        return self.table.frame.loc[:, wanted].iloc[self.rows].reset_index(drop=True)


def match(
    path: str | os.PathLike[str], ids: Iterable[Any], column: str | None = None, trained: TrainedRows | None = None
) -> Matched:
    """Find the rows of a file that hold `ids`.

    `trained` describes how ids were made and what their rows were, so rows that have moved are found by text and label.
    `column` names the id column. With neither, a column with a usual id name is used if every row has a value and none
    is repeated; otherwise ids are row numbers from 0. Ids are compared as text (7 is "7"; "007" is not). Raises
    CorpusError (no such file or column, a damaged file, unusable ids) and AlignmentError (ids that are not in the file,
    or rows that have changed since training).
    """
    wanted, reading = [str(i) for i in ids], trained.reading if trained is not None else {}
    table, known = read_table(Path(path), **reading.get("options", {})), reading.get("columns", {})
    have = [str(name) for name in table.frame.columns]
    name = column or (first_of(have, IDS) if trained is None else known.get("id"))
    now: Sequence[str | None] = [str(row) for row in range(len(table.frame))]
    by, keys = "row numbers from 0", [str(int(i)) if i.isdecimal() else i for i in wanted]
    if name is not None and (name in have or column is not None):
        settled = column is not None or trained is not None
        try:
            now, by, keys = ids_of(table, name, gaps=settled), f"column {name!r}", wanted
        except CorpusError:
            if settled:
                raise
    row_of = {key: row for row, key in enumerate(now) if key is not None}
    rows = [row_of.get(key) for key in keys]
    texts = [name for part in ("text", "text_pair") if (name := known.get(part)) in have] or _texts(table)
    if trained is not None and (moved := _moved(table, texts, trained, wanted, rows)):
        by = "text and label, because the order of the rows has changed since training"
        rows = [moved.get(i, row) for i, row in enumerate(rows)]
    missing = [i for i, row in enumerate(rows) if row is None]
    if missing:
        found = f"{wanted[missing[0]]!r} first"
        if len(missing) == len(wanted) and row_of:
            found = f"{wanted[0]!r} in the dynamics and {next(iter(row_of))!r} in the file, for example"
        what = f"{len(missing)} of the {len(wanted)} ids are not in the file ({by})"
        hint = "give the file that was trained on, and name its id column with --id"
        raise AlignmentError(what, where=path, found=found, hint=hint)
    return Matched(table, np.array(rows, dtype=np.int64), by, tuple(keys), tuple(texts))


def _texts(table: Table) -> list[str]:
    """Return the columns with the usual name of a text, else the one with the most words, if it has two on average."""
    frame = table.frame.loc[:, ~table.frame.columns.duplicated()]
    words = {str(name): frame[name].astype(str).str.count(r"\S+").mean() for name in frame if len(frame)}
    longest = max(words, key=words.__getitem__, default="")
    return text_columns(list(words)) or ([longest] if words.get(longest, 0) >= 2 else [])


# --- what a run stores of its rows ----------------------------------------------------------------------------------


def _fingerprint(*texts: str) -> int:
    """Return a 64-bit hash of a text, or of both texts of a pair."""
    return int.from_bytes(hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest(), "little")


def save_trained_rows(path: Path, corpus: Corpus, split: Split) -> None:
    """Write what a run stores of its training rows: Parquet with columns id, text (uint64), label (name)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sides = [split.text] if split.text_pair is None else [split.text, split.text_pair]
    texts = pa.array([_fingerprint(*row) for row in zip(*sides, strict=True)], pa.uint64())
    table = pa.table({"id": split.ids.tolist(), "text": texts, "label": [corpus.labels[i] for i in split.label]})
    with files.replacing(path) as tmp:
        about = {_READING: json.dumps(corpus.card.reading)}
        pq.write_table(table.replace_schema_metadata(about), tmp, compression="zstd")


def trained_rows(dynamics: Path) -> TrainedRows | None:
    """Return what the run of a dynamics file stores of its rows; None for dynamics from elsewhere."""
    import pyarrow.parquet as pq

    path = dynamics.parent.parent / "rows" / dynamics.name
    if not dynamics.parent.name.startswith("dynamics") or not path.is_file():
        return None
    table = pq.read_table(path)
    ids, texts, labels = (table[name].to_pylist() for name in ("id", "text", "label"))
    values = dict(zip(ids, zip(texts, labels, strict=True), strict=True))
    return TrainedRows(values, json.loads(table.schema.metadata[_READING]))


def check_same_rows(first: Path, second: Path) -> None:
    """Raise AlignmentError if the same ids are different rows in two runs; dynamics from elsewhere always pass."""
    one, two = trained_rows(first), trained_rows(second)
    common = [i for i in one.rows if i in two.rows] if one is not None and two is not None else []
    other = [i for i in common if one.rows[i] != two.rows[i]]  # type: ignore[union-attr]
    if other:
        what, found = f"{len(other)} of {len(common)} ids are different rows in the two runs", f"{other[0]!r} first"
        hint = "compare runs that were trained on the same file"
        raise AlignmentError(what, where=second, found=found, hint=hint)


def _labels(table: Table, trained: TrainedRows) -> list[str | None] | None:
    """Return the label of every row as the run names it; None if the file has no label column."""
    column, names = trained.reading["columns"]["label"], trained.reading["labels"]
    if column not in table.frame:
        return None
    labels = labels_of(table, column)
    equal = equal_numbers(label for label in labels if label is not None)
    return [names.get(label, equal.get(label, label)) if label is not None else None for label in labels]


def _moved(
    table: Table, texts: Sequence[str], trained: TrainedRows, ids: Sequence[str], rows: Sequence[int | None]
) -> dict[int, int]:
    """Return the new rows of examples (by position in `ids`) whose row has changed. Raises AlignmentError."""
    n = len(table.frame)
    sides = [map(str, texts_of(table, name)) for name in texts]
    prints = [_fingerprint(*row) for row in zip(*sides, strict=True)] if sides else [0] * n
    labels = _labels(table, trained)
    then = [trained.rows.get(key, (-1, "")) for key in ids]
    wanted = [(text, None if labels is None else name) for text, name in then]
    now = list(zip(prints, labels or [None] * n, strict=True))
    same = {row for row, was in zip(rows, wanted, strict=True) if row is not None and now[row] == was}
    others: dict[tuple[int, str | None], list[int]] = defaultdict(list)
    for row in reversed(range(n)):
        if row not in same:
            others[now[row]].append(row)
    changed = [i for i, row in enumerate(rows) if row not in same]
    moved = {i: others[wanted[i]].pop() for i in changed if others.get(wanted[i])}
    if lost := [i for i in changed if i not in moved]:
        (text, name), key = then[lost[0]], ids[lost[0]]
        what = f"{len(lost)} of the {len(ids)} rows have changed since training"
        other = next((new for found, new in now if found == text), None)
        what = "none of these examples is in the file" if len(lost) == len(ids) > 1 and other is None else what
        found = f"no row with the text of id {key!r}"
        found = found if other is None else f"the label {other!r} for id {key!r}, which was trained with {name!r}"
        hint = "give the file that was trained on, or train on this one"
        raise AlignmentError(what, where=table.where, found=found, hint=hint)
    return moved


# --- copies ---------------------------------------------------------------------------------------------------------


def copy_rows(
    path: Path,
    table: Table,
    out: str | os.PathLike[str],
    rows: npt.NDArray[np.int64],
    column: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write rows of a file to `out`, in its format and with its columns.

    Args:
        path: the file.
        table: its rows, as returned by `read_table`.
        out: the copy; its name must have the same suffix as the file.
        rows: (n,) positions of the rows to write.
        column: take only this column from `rows`, one for each row of the file; the others stay as they are.

    Raises:
        SoiError: `out` has another format, is the file itself, or cannot be written.
    """
    import pyarrow.parquet as pq

    target, kind = Path(out), kind_of(path)
    if kind_of(target) != kind:
        what = "a copy must have the format of the original file"
        raise SoiError(what, where=target, found=repr(kind_of(target)), expected=repr(kind))
    if target.exists() and target.resolve() == path.resolve():
        raise SoiError("the copy would replace the original file", where=target, hint="choose another name")
    with files.replacing(target, overwrite=overwrite) as tmp:
        if kind == ".parquet":
            whole = pq.ParquetFile(path).read()
            at = -1 if column is None else whole.schema.get_field_index(column)
            made = whole.take(rows) if at < 0 else whole.set_column(at, whole.field(at), whole.column(at).take(rows))
            pq.write_table(made, tmp)
            return
        frame = table.frame.iloc[rows]
        if column is not None:
            frame = table.frame.assign(**{column: frame[column].to_numpy()})
        text = io.StringIO()
        if table.separator:
            # the csv module of Python 3.11 does not quote texts that contain a carriage return
            hard = frame.map(lambda value: "\r" in value).any(axis=None)
            quoting: Literal[0, 1] = 1 if hard else 0  # all, or minimal
            writer = csv.writer(text, delimiter=table.separator, quoting=quoting, lineterminator=table.line_end)
            if table.header:
                writer.writerow(frame.columns)
            writer.writerows(frame.to_numpy().tolist())
        else:  # keys that a row of a JSON file lacks are NaN in the frame
            records = [{str(k): v for k, v in row.items() if v == v} for row in frame.to_dict("records")]
            indent, each = (None, records) if table.lines else (1, [records])
            text.writelines(json.dumps(record, ensure_ascii=False, indent=indent) + "\n" for record in each)
        data = text.getvalue().encode(table.encoding)
        tmp.write_bytes(gzip.compress(data, mtime=0) if target.suffix.lower() == ".gz" else data)


# --- reviewed labels -------------------------------------------------------------------------------------------------

COLUMN = "corrected"
"""The column of a reviewed list that holds the reviewer's label."""


def write_corrected(
    source: Path,
    reviewed: Path,
    dynamics: Path,
    out: str | os.PathLike[str],
    *,
    id_column: str | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write a copy of the file `source` with the labels of a reviewed list.

    `reviewed` is a file written by `soi label-issues --out`, to which the reviewer has added `COLUMN`; only this column
    and id are read. `dynamics` is from the run that was trained on `source`. Returns how many rows were reviewed, and
    how many of these now have another label. Raises SoiError for dynamics from elsewhere, unknown ids or labels and
    rows without a corrected label, and as `match` and `copy_rows` do.
    """
    trained = trained_rows(dynamics)
    if trained is None:
        what = "the label column of these dynamics is not known"
        raise SoiError(what, where=dynamics, expected="dynamics in a folder that soi train made")
    table = read_table(reviewed)
    table.check_columns({name: f"add a column {name}" for name in ("id", COLUMN)})
    numbered = trained.reading["columns"]["id"] is None  # shown as 7, recorded as 000007
    ids = [f"{int(i):06d}" if numbered and i.isdecimal() else i for i in map(str, texts_of(table, "id"))]
    names = {name for _, name in trained.rows.values()}
    texts = labels_of(table, COLUMN)
    equal = equal_numbers([*names, *(text for text in texts if text is not None)])  # a spreadsheet writes 1.0 for 1
    labels = [equal.get(str(text), text) for text in texts]
    problems = [] if ids else [CorpusError("there are no rows", where=reviewed)]
    if open_rows := [row for row, label in enumerate(labels) if label is None]:
        found = f"none in {some([table.row(row) for row in open_rows[:6]], len(open_rows))}"
        hint = "fill them in (with the given label if it is right), or delete the rows"
        problems.append(CorpusError(f"not every row has a {COLUMN} label", where=reviewed, found=found, hint=hint))
    if unknown := [str(shown) for shown, key in zip(table.frame["id"], ids, strict=True) if key not in trained.rows]:
        hint = "give the list that soi label-issues made for this run"
        problems.append(CorpusError("ids were not trained on", where=reviewed, found=some(unknown), hint=hint))
    if repeated := [key for key, n in Counter(ids).items() if n > 1]:
        expected = "every id once"
        problems.append(CorpusError("ids appear twice", where=reviewed, found=some(repeated), expected=expected))
    if other := sorted({label for label in labels if label is not None} - names):
        what, hint = "labels are not among the classes", nearest(other[0], names)
        problems.append(CorpusError(what, where=reviewed, found=some(other), hint=hint))
    raise_all(problems)
    matched = match(source, ids, id_column, trained)
    now, column = _labels(matched.table, trained), trained.reading["columns"]["label"]
    if now is None:
        raise CorpusError(f"there is no column {column!r}", where=source, hint="give the file that was trained on")
    row_with = {name: row for row, name in reversed(list(enumerate(now)))}
    if lost := sorted({str(label) for label in labels} - set(row_with)):
        raise CorpusError("no row of the file has this label", where=source, found=some(lost))
    same = np.arange(len(now))
    rows = same.copy()
    for row, name in zip(matched.rows, labels, strict=True):
        rows[row] = row if now[row] == name else row_with[name]
    copy_rows(source, matched.table, out, rows, column, overwrite=overwrite)
    return len(ids), int((rows != same).sum())
